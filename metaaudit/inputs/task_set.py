"""Tasks as rows into one pool of images, so that an image is held once however often it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from metaaudit.errors import TaskSetError

SetName = Literal["support", "query"]
SETS: tuple[SetName, SetName] = ("support", "query")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImagePool:
    """All inputs that a task set refers to, each held once.

    Attributes:
        pixels: ``[n_images, ...]``, channels first for images; uint8 or floating point.
        ids: One stable name an image, of length ``n_images``.
        scale: uint8 pixels are divided by this; floating-point pixels are left alone.
        invert: Whether uint8 pixels are flipped (255 - pixel) first.
        mean: Subtracted from the result: none, one number, or one for each of the first dimension
            of an input, its channels.
        std: The result is divided by this; likewise.

    Raises:
        TaskSetError: ``mean`` or ``std`` has another length.
    """

    pixels: npt.NDArray[np.generic]
    ids: tuple[str, ...]
    scale: float = 255.0
    invert: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (0, 1, *self.input_shape[:1]):
                raise TaskSetError(
                    f"tasks.image.{name}",
                    f"has {len(numbers)} numbers for inputs of shape {list(self.input_shape)}",
                    "one number, or one a channel",
                )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch dimension."""
        return tuple(self.pixels.shape[1:])

    def values(self, rows: Ints) -> npt.NDArray[np.floating]:
        """Returns the model's inputs ``[*rows.shape, *input_shape]``, float32 or float64."""
        picked = self.pixels[rows]
        if picked.dtype == np.uint8:
            picked = 255 - picked if self.invert else picked
            values = picked.astype(np.float32) / np.float32(self.scale)
        else:
            values = picked.astype(np.float64 if picked.dtype == np.float64 else np.float32)
        values = values - self._each_channel(self.mean, values.dtype) if self.mean else values
        return values / self._each_channel(self.std, values.dtype) if self.std else values

    def _each_channel(
        self, numbers: tuple[float, ...], dtype: np.dtype[np.floating]
    ) -> npt.NDArray[np.floating]:
        """The numbers so that they broadcast over the first dimension of an input."""
        return np.array(numbers, dtype).reshape(-1, *(1 for _ in self.input_shape[1:]))


@dataclass(frozen=True)
class Task:
    """One few-shot task, or a batch of a labelled data set: a task whose support is empty.

    Attributes:
        task_id: Stable name.
        support: ``[n]`` rows into the image pool.
        support_y: ``[n]`` labels in ``0..ways-1``.
        query: ``[m]`` rows into the image pool.
        query_y: ``[m]`` labels in ``0..ways-1``.
        class_names: The dataset's name of each label, where known; else empty. A batch has those
            of all classes, also of those that none of its instances is of.
    """

    task_id: str
    support: Ints
    support_y: Ints
    query: Ints
    query_y: Ints
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of support and of query instances."""
        return len(self.support), len(self.query)

    @property
    def ways(self) -> int:
        """Number of classes."""
        if not len(self.support):
            return len(self.class_names)
        return 1 + int(self.pooled_labels.max())

    @property
    def pooled_labels(self) -> Ints:
        """Labels ``[n + m]`` of support and query together."""
        return np.concatenate([self.support_y, self.query_y])

    def rows(self, name: SetName) -> Ints:
        """Rows into the image pool of one of the two sets."""
        return self.support if name == "support" else self.query

    def labels(self, name: SetName) -> Ints:
        """Labels of one of the two sets."""
        return self.support_y if name == "support" else self.query_y


@dataclass(frozen=True)
class TaskSet:
    """A fixed list of tasks over one pool of images. Tasks may differ in size."""

    pool: ImagePool
    tasks: tuple[Task, ...]

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def task_ids(self) -> list[str]:
        """Ids in the order of the tasks."""
        return [task.task_id for task in self.tasks]

    @property
    def n_instances(self) -> int:
        """Number of occurrences of an image in a support or query set."""
        return sum(sum(task.shape) for task in self.tasks)

    @property
    def ways(self) -> int:
        """The largest number of classes in any task."""
        return max(task.ways for task in self.tasks)

    @property
    def labelled(self) -> bool:
        """Whether the tasks are batches of one labelled data set, which have no support."""
        return not any(len(task.support) for task in self.tasks)

    @property
    def size(self) -> str:
        """How much there is, in words."""
        instances = f"{self.n_instances} instances"
        return instances if self.labelled else f"{len(self)} tasks, {instances}"

    @property
    def query_sizes(self) -> Ints:
        """Number of query instances of every task, ``[n_tasks]``."""
        return np.array([len(task.query) for task in self.tasks], dtype=np.int64)

    def select(self, rows: Sequence[int]) -> TaskSet:
        """The task set of the given rows, in their order, over the same pool."""
        return TaskSet(self.pool, tuple(self.tasks[row] for row in rows))

    def instances(self) -> Iterator[tuple[int, SetName, int]]:
        """Every occurrence as ``(task row, set, index)``: support before query, in order."""
        for row, task in enumerate(self.tasks):
            for name in SETS:
                for index in range(len(task.rows(name))):
                    yield row, name, index

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything a score depends on: inputs as the model sees them, labels, ids.

        What is in the pool and in no task does not count, nor does the order within the pool.
        """
        pool = self.pool
        form = (pool.pixels.dtype.str, pool.input_shape, pool.scale, pool.invert)
        digest = hashlib.sha256(repr((*form, pool.mean, pool.std)).encode())
        images = self._image_digests()
        for task in self.tasks:
            digest.update(repr((task.task_id, task.shape, task.class_names)).encode())
            for name in SETS:
                digest.update(images[task.rows(name)].tobytes())
                digest.update(np.ascontiguousarray(task.labels(name)).tobytes())
        return digest.hexdigest()

    def _image_digests(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of the id and the pixels of each image that is in a task, ``[n_images, 32]``.

        Each image is hashed once, so that many tasks take little longer than few.
        """
        pool = self.pool
        digests = np.zeros((len(pool.ids), hashlib.sha256().digest_size), dtype=np.uint8)
        used = np.zeros(len(pool.ids), dtype=bool)
        for task in self.tasks:
            used[task.support] = used[task.query] = True
        for row in np.flatnonzero(used):
            digest = hashlib.sha256(f"{pool.ids[row]}\0".encode())
            digest.update(pool.pixels[row].tobytes())
            digests[row] = np.frombuffer(digest.digest(), dtype=np.uint8)
        return digests
