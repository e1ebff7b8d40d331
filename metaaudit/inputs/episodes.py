"""Ready-made tasks in ``.npz`` or HDF5 files.

======================  ==============  =====================================================
array                   shape           content
======================  ==============  =====================================================
``support_x``           ``[T, n, ...]`` inputs, uint8 or floating point
``support_y``           ``[T, n]``      integer labels in ``0..ways-1``; -1: no instance here
``query_x``             ``[T, m, ...]`` likewise
``query_y``             ``[T, m]``      likewise
``task_id``             ``[T]``         optional text; ``task-<row>`` if absent
``support_id``          ``[T, n]``      optional text; ``<task_id>/support/<index>`` if absent
``query_id``            ``[T, m]``      likewise
``class_names``         ``[T, ways]``   optional text, padded with empty text
======================  ==============  =====================================================

Equal ids mean the same input: it is held once, and must be equal wherever it occurs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metaaudit.config.schema import EpisodeImageConfig, EpisodesConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.arrays import Array, check_suffix, read_arrays, write_arrays
from metaaudit.inputs.task_set import SETS, ImagePool, SetName, Task, TaskSet

ABSENT = -1
"""Label of a slot that holds no instance: tasks of different sizes share one array."""

_REQUIRED = ("support_x", "support_y", "query_x", "query_y")
_INPUTS = tuple(np.dtype(name) for name in ("uint8", "float16", "float32", "float64"))
_TEXT = ("task_id", "support_id", "query_id", "class_names")
_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, lone surrogates


def load_episodes(config: EpisodesConfig) -> tuple[TaskSet, TaskSet]:
    """Reads the training and the evaluation tasks.

    Raises:
        TaskSetError: A file cannot be used, or the two differ in the shape of their inputs.
    """
    train = read_episodes(config.train, config.image)
    evaluation = read_episodes(config.eval, config.image)
    if train.pool.input_shape != evaluation.pool.input_shape:
        raise TaskSetError(
            config.eval,
            f"holds inputs of shape {evaluation.pool.input_shape}",
            f"{train.pool.input_shape}, as in {config.train}",
        )
    return train, evaluation


def read_episodes(path: Path, image: EpisodeImageConfig) -> TaskSet:
    """Reads a file of tasks.

    Raises:
        TaskSetError: The file cannot be read or breaks the format.
    """
    arrays = read_arrays(path, (*_REQUIRED, *_TEXT))
    _check_shapes(path, arrays)
    _check_kinds(path, arrays)
    task_ids = _task_ids(path, arrays)
    pool = _PoolBuilder(path)
    tasks = []
    for row, task_id in enumerate(task_ids):
        parts = {name: _read_set(arrays, name, row, task_id, pool) for name in SETS}
        (support, support_y), (query, query_y) = parts["support"], parts["query"]
        names = _class_names(arrays, row)
        tasks.append(Task(task_id, support, support_y, query, query_y, names))
        check_task(path, tasks[-1])
    pixels = np.stack(pool.pixels)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return TaskSet(ImagePool(pixels, tuple(pool.row_of), image.scale, image.invert), tuple(tasks))


def write_episodes(path: Path, task_set: TaskSet) -> None:
    """Writes tasks so that reading them with default image options gives the same inputs.

    Raises:
        TaskSetError: The suffix is of no known kind, there are no tasks, or one of them could
            not be read back.
        RunError: The folder cannot be written to.
    """
    check_suffix(path)
    if not task_set.tasks:
        raise TaskSetError(path, "would hold no tasks", "at least one")
    for task in task_set.tasks:
        check_task(path, task)
    arrays: dict[str, Array] = {"task_id": _text(path, task_set.task_ids)}
    pixels = _default_pixels(task_set.pool)
    for name in SETS:
        slots = max(len(task.rows(name)) for task in task_set.tasks)
        shape = (len(task_set), slots)
        arrays[f"{name}_x"] = np.zeros((*shape, *pixels.shape[1:]), dtype=pixels.dtype)
        arrays[f"{name}_y"] = np.full(shape, ABSENT, dtype=np.int64)
        ids = [[""] * slots for _ in task_set.tasks]
        for row, task in enumerate(task_set.tasks):
            count = len(task.rows(name))
            arrays[f"{name}_x"][row, :count] = pixels[task.rows(name)]
            arrays[f"{name}_y"][row, :count] = task.labels(name)
            ids[row][:count] = [task_set.pool.ids[i] for i in task.rows(name)]
        arrays[f"{name}_id"] = _text(path, ids)
    if any(task.class_names for task in task_set.tasks):
        width = max(len(task.class_names) for task in task_set.tasks)
        padded = [[*task.class_names, *[""] * width][:width] for task in task_set.tasks]
        arrays["class_names"] = _text(path, padded)
    write_arrays(path, arrays)


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


@dataclass
class _PoolBuilder:
    """Collects inputs, each id once."""

    path: Path
    pixels: list[Array] = field(default_factory=list)
    row_of: dict[str, int] = field(default_factory=dict)

    def row(self, image_id: str, pixels: Array) -> int:
        row = self.row_of.setdefault(image_id, len(self.pixels))
        if row == len(self.pixels):
            self.pixels.append(pixels)
        elif self.pixels[row].tobytes() != pixels.tobytes():
            raise TaskSetError(
                self.path, f"id '{image_id}' has two different inputs", "one input an id"
            )
        return row


def _read_set(
    arrays: Mapping[str, Array], name: SetName, row: int, task_id: str, pool: _PoolBuilder
) -> tuple[Any, Any]:
    """Pool rows and labels of one set of one task."""
    rows, labels = [], []
    ids = arrays.get(f"{name}_id")
    for index, label in enumerate(arrays[f"{name}_y"][row].tolist()):
        where = f"{pool.path}: task '{task_id}', {name} {index}"
        if label == ABSENT:
            continue
        if not 0 <= label < arrays["support_y"].shape[1]:  # more classes than support instances
            raise TaskSetError(where, f"has label {label}", "0..ways-1, or -1 for no instance")
        pixels = arrays[f"{name}_x"][row, index]
        if pixels.dtype != np.uint8 and not np.isfinite(pixels).all():
            raise TaskSetError(where, "its input holds NaN or infinity", "finite numbers")
        image_id = f"{task_id}/{name}/{index}" if ids is None else str(ids[row, index])
        if not image_id:
            raise TaskSetError(where, f"its {name}_id is empty", "an id for every instance")
        rows.append(pool.row(image_id, pixels))
        labels.append(label)
    return np.array(rows, dtype=np.int64), np.array(labels, dtype=np.int64)


def _check_shapes(path: Path, arrays: Mapping[str, Array]) -> None:
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise TaskSetError(path, f"lacks {', '.join(missing)}", f"{', '.join(_REQUIRED)}")
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(shapes["support_x"]) < 3:
        raise TaskSetError(
            f"{path}: support_x", f"has shape {shapes['support_x']}", "[tasks, instances, ...]"
        )
    n_tasks, inputs = shapes["support_x"][0], shapes["support_x"][2:]
    for name in SETS:
        slots = shapes[f"{name}_x"][1:2]
        wanted = {"x": (n_tasks, *slots, *inputs), "y": (n_tasks, *slots), "id": (n_tasks, *slots)}
        for part, shape in wanted.items():
            _check_shape(path, shapes, f"{name}_{part}", shape)
        if 0 in shapes[f"{name}_x"]:
            raise TaskSetError(
                f"{path}: {name}_x", f"has shape {shapes[f'{name}_x']}", "at least one of each"
            )
    _check_shape(path, shapes, "task_id", (n_tasks,))
    _check_shape(path, shapes, "class_names", (n_tasks, *shapes.get("class_names", ())[1:2]))


def _check_shape(
    path: Path, shapes: Mapping[str, tuple[int, ...]], name: str, shape: tuple[int, ...]
) -> None:
    if shapes.get(name, shape) != shape:
        raise TaskSetError(
            f"{path}: {name}", f"has shape {shapes[name]}", f"{shape}, to match support_x"
        )


def _check_kinds(path: Path, arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        where, got = f"{path}: {name}", f"has dtype {array.dtype}"
        if name in _TEXT:
            if array.dtype.kind != "U":
                raise TaskSetError(where, got, "text", "array.astype(str)")
            _check_text(where, array)
        if name.endswith("_x") and array.dtype.newbyteorder("=") not in _INPUTS:
            raise TaskSetError(where, got, "uint8, float16, float32 or float64", "convert it")
        if name.endswith("_y") and array.dtype.kind not in "iu":
            raise TaskSetError(where, got, "integers", "array.astype('int64')")
    if arrays["support_x"].dtype != arrays["query_x"].dtype:
        raise TaskSetError(
            f"{path}: query_x",
            f"has dtype {arrays['query_x'].dtype}",
            f"{arrays['support_x'].dtype}, as support_x",
        )


def _task_ids(path: Path, arrays: Mapping[str, Array]) -> list[str]:
    if "task_id" not in arrays:
        return [f"task-{row}" for row in range(len(arrays["support_x"]))]
    ids = [str(task_id) for task_id in arrays["task_id"]]
    seen: set[str] = set()
    for row, task_id in enumerate(ids):
        if not task_id or task_id in seen:
            what = f"row {row} repeats '{task_id}'" if task_id else f"row {row} is empty"
            raise TaskSetError(f"{path}: task_id", what, "a different id for every task")
        seen.add(task_id)
    return ids


def _class_names(arrays: Mapping[str, Array], row: int) -> tuple[str, ...]:
    names = [str(name) for name in arrays["class_names"][row]] if "class_names" in arrays else []
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def _default_pixels(pool: ImagePool) -> Array:
    """Pixels that give the model's inputs without ``scale`` and ``invert``."""
    if pool.pixels.dtype != np.uint8:
        return pool.pixels
    if pool.scale != 255.0:
        return pool.values(np.arange(len(pool.pixels)))
    return np.asarray(255 - pool.pixels if pool.invert else pool.pixels)


def _text(path: Path, values: Any) -> Array:
    """Text as an array that reads back as it was."""
    array = np.array(values, dtype=object)
    _check_text(path, array)
    return array.astype(str)


def _check_text(where: object, texts: Array) -> None:
    """Refuses what would break a line of a report or is no UTF-8."""
    for text in texts.flat:
        if _UNFIT.search(text):
            raise TaskSetError(
                where,
                f"{str(text)!r} holds a control character or half a Unicode character",
                "printable text",
                "rename it",
            )
