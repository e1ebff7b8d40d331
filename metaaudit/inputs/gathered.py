"""Tasks that are given one by one: their checks, and the pool of their inputs, each held once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.config.tasks import ValuesConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.task_set import SETS, Ints, Task, TaskSet
from metaaudit.inputs.values import image_pool

Array = npt.NDArray[Any]

ABSENT = -1
"""Label of a slot that holds no instance: tasks of different sizes share one array."""

_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, lone surrogates


@dataclass(frozen=True)
class Instances:
    """Some instances of a task.

    Attributes:
        pixels: ``[n, ...]`` their inputs.
        labels: ``[n]`` their labels.
        ids: Their ids.
    """

    pixels: Array
    labels: Ints
    ids: tuple[str, ...]

    def picked(self, chosen: npt.NDArray[np.bool_]) -> Instances:
        """Those of a mask ``[n]``."""
        ids = tuple(self.ids[row] for row in np.flatnonzero(chosen))
        return Instances(self.pixels[chosen], self.labels[chosen], ids)


def instances(
    task: str, called: str, pixels: Array, labels: Array, ids: Sequence[str], most_ways: int
) -> Instances:
    """The instances of some slots, without those that hold none.

    Args:
        task: What to call the task in messages.
        called: What to call a slot there, before its index.
        pixels: ``[slots, ...]``.
        labels: ``[slots]`` integers; -1: no instance here.
        ids: One a slot.
        most_ways: More classes than this cannot be: there are no more support instances.

    Raises:
        TaskSetError: A label, an input or an id cannot be used.
    """
    where = f"{task}, {called}"
    kept: npt.NDArray[np.bool_] = np.asarray(labels != ABSENT)
    wrong: npt.NDArray[np.bool_] = kept & ((labels < 0) | (labels >= most_ways))
    if wrong.any():
        row = wrong.tolist().index(True)
        raise TaskSetError(
            f"{where} {row}", f"has label {labels[row]}", "0..ways-1, or -1 for no instance"
        )
    if pixels.dtype != np.uint8:
        finite = np.isfinite(pixels).reshape(len(pixels), -1).all(axis=1)
        wrong = kept & ~np.asarray(finite, dtype=np.bool_)
        if wrong.any():
            row = wrong.tolist().index(True)
            raise TaskSetError(
                f"{where} {row}", "its input holds NaN or infinity", "finite numbers"
            )
    for row, image_id in enumerate(ids):
        if not image_id and kept[row]:
            what = f"its {called}_id is empty"
            raise TaskSetError(f"{where} {row}", what, "an id for every instance")
    found = Instances(pixels, labels.astype(np.int64), tuple(ids))
    return found if kept.all() else found.picked(kept)


@dataclass
class TaskGatherer:
    """Collects tasks and a pool of their inputs.

    Attributes:
        where: What to call all of them in messages.
        room: How many inputs there will be at most, where that is known: memory is asked for once.
    """

    where: object
    room: int = 0
    _tasks: list[Task] = field(default_factory=list)
    _task_ids: set[str] = field(default_factory=set)
    _row_of: dict[str, int] = field(default_factory=dict)
    _pixels: Array | None = None

    def add(
        self,
        task_id: str,
        support: Instances,
        query: Instances,
        class_names: Sequence[str] = (),
    ) -> None:
        """Adds a task, whose inputs are copied.

        Raises:
            TaskSetError: It cannot be adapted to, its id is taken, or one of its inputs has
                another shape or type than those before, or the id of another one.
        """
        if not task_id or task_id in self._task_ids:
            row = len(self._tasks)
            what = f"row {row} repeats '{task_id}'" if task_id else f"row {row} is empty"
            raise TaskSetError(f"{self.where}: task_id", what, "a different id for every task")
        self._task_ids.add(task_id)
        rows = [self._rows(task_id, given) for given in (support, query)]
        names = tuple(class_names)
        task = Task(task_id, rows[0], support.labels, rows[1], query.labels, names)
        check_task(self.where, task)
        self._tasks.append(task)

    def task_set(self, image: ValuesConfig) -> TaskSet:
        """All tasks.

        Args:
            image: How a pixel becomes a value.

        Raises:
            TaskSetError: There are none, or ``image`` does not fit their inputs.
        """
        if self._pixels is None:
            raise TaskSetError(self.where, "holds no tasks", "at least one")
        self._resize(len(self._row_of))
        return TaskSet(image_pool(self._pixels, tuple(self._row_of), image), tuple(self._tasks))

    def _rows(self, task_id: str, given: Instances) -> Ints:
        """Pool rows of some instances, which are copied into it where their ids are new."""
        pool = self._fitting(task_id, given.pixels)
        used = len(self._row_of)
        if used + len(given.ids) > len(pool):
            # In few steps, and with no more to spare than a quarter.
            pool = self._resize(max(used + len(given.ids), len(pool) + len(pool) // 4))
        rows = []
        for image_id, pixels in zip(given.ids, given.pixels, strict=True):
            row = self._row_of.get(image_id)
            if row is None:
                row = self._row_of[image_id] = len(self._row_of)
                pool[row] = pixels
            elif pool[row].tobytes() != pixels.astype(pool.dtype, copy=False).tobytes():
                raise TaskSetError(
                    self.where, f"id '{image_id}' has two different inputs", "one input an id"
                )
            rows.append(row)
        return np.array(rows, dtype=np.int64)

    def _fitting(self, task_id: str, pixels: Array) -> Array:
        """The pool, once it is known to be for such inputs."""
        dtype = pixels.dtype.newbyteorder("=")
        if self._pixels is None:
            try:
                self._pixels = np.empty((self.room, *pixels.shape[1:]), dtype=dtype)
            except (MemoryError, ValueError):  # more than fits, more than can be
                raise TaskSetError(self.where, "does not fit into memory") from None
        for what, found, wanted in (
            ("shape", list(pixels.shape[1:]), list(self._pixels.shape[1:])),
            ("dtype", dtype, self._pixels.dtype),
        ):
            if found != wanted:
                raise TaskSetError(
                    f"{self.where}: task '{task_id}'",
                    f"has inputs of {what} {found}",
                    f"{wanted}, as those before it",
                )
        return self._pixels

    def _resize(self, room: int) -> Array:
        assert self._pixels is not None
        if room != len(self._pixels):
            # In place: nothing else holds the pool yet.
            self._pixels.resize((room, *self._pixels.shape[1:]), refcheck=False)
        return self._pixels


def check_task(where: object, task: Task) -> None:
    """Checks that a task can be adapted to and that its labels are the classes of its support.

    Raises:
        TaskSetError: A set is empty, or labels leave out a class or are not in the support.
    """
    place = f"{where}: task '{task.task_id}'"
    for name in SETS:
        if not len(task.rows(name)):
            raise TaskSetError(place, f"its {name} set is empty", "at least one instance")
    classes = set(task.support_y.tolist())
    ways = 1 + max(*classes, *task.query_y.tolist())
    unknown = sorted(set(task.query_y.tolist()) - classes)
    if unknown:
        raise TaskSetError(
            place,
            f"label {unknown[0]} is in its query but not in its support",
            "every query class in the support",
            "remove those query instances",
        )
    if len(classes) < ways:
        gap = next(i for i, label in enumerate(sorted(classes)) if label != i)
        raise TaskSetError(
            place, f"has label {ways - 1} but not {gap}", "labels 0..ways-1", "renumber them"
        )
    if task.class_names and len(task.class_names) < ways:
        raise TaskSetError(place, f"names {len(task.class_names)} classes", f"{ways} names")


def check_text(where: object, texts: Iterable[str]) -> None:
    """Refuses what would break a line of a report or is no UTF-8.

    Raises:
        TaskSetError: A text holds such a character.
    """
    for text in texts:
        if _UNFIT.search(text):
            raise TaskSetError(
                where,
                f"{str(text)!r} holds a control character or half a Unicode character",
                "printable text",
                "rename it",
            )
