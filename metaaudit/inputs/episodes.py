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

The first four may have the names that MAML-Pytorch gives them (``x_spt``, ``y_spt``, ``x_qry``,
``y_qry``) or torchmeta (``train_inputs``, ``train_targets``, ``test_inputs``, ``test_targets``).
Or ``data`` ``[T, n, ...]`` and ``labels`` ``[T, n]`` hold support and query together, as tasks of
learn2learn do, whose instances have the ids ``<task_id>/data/<index>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metaaudit.config.tasks import EpisodesConfig, JoinedConfig, ValuesConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.arrays import Array, ArrayFile, check_suffix, open_arrays, write_arrays
from metaaudit.inputs.episode_names import KNOWN, Forms, Naming, SetNames, check_texts, naming_of
from metaaudit.inputs.gathered import ABSENT, TaskGatherer, check_task, check_text, instances
from metaaudit.inputs.joined import cut
from metaaudit.inputs.task_set import SETS, TaskSet
from metaaudit.inputs.values import default_pixels


def load_episodes(config: EpisodesConfig) -> tuple[TaskSet, TaskSet]:
    """Reads the training and the evaluation tasks.

    Raises:
        TaskSetError: A file cannot be used, or the two differ in the shape of their inputs.
    """
    train = read_episodes(config.train, config.image, config.joined)
    evaluation = read_episodes(config.eval, config.image, config.joined)
    if train.pool.input_shape != evaluation.pool.input_shape:
        raise TaskSetError(
            config.eval,
            f"holds inputs of shape {evaluation.pool.input_shape}",
            f"{train.pool.input_shape}, as in {config.train}",
        )
    return train, evaluation


def read_episodes(path: Path, image: ValuesConfig, joined: JoinedConfig | None = None) -> TaskSet:
    """Reads a file of tasks, of which no input is held twice.

    Args:
        path: The file.
        image: How a pixel becomes a value.
        joined: How tasks with support and query together are cut.

    Raises:
        TaskSetError: The file cannot be read or breaks the format.
    """
    with open_arrays(path, KNOWN) as file:
        naming = naming_of(path, file.names, joined)
        arrays = _checked_arrays(file, naming)
        labels = [arrays[names.labels] for names in naming]
        gathered = TaskGatherer(path, room=sum(int((y != ABSENT).sum()) for y in labels))
        inputs = [file.rows(names.inputs) for names in naming]
        for row, pixels in enumerate(zip(*inputs, strict=True)):
            task_id = str(arrays["task_id"][row]) if "task_id" in arrays else f"task-{row}"
            where, slots = f"{path}: task '{task_id}'", labels[0].shape[1]
            sets = []
            for names, x in zip(naming, pixels, strict=True):
                y, ids = arrays[names.labels][row], _ids(arrays, names, row, task_id)
                sets.append(instances(where, names.called, x, y, ids, most_ways=slots))
            support, query = sets if joined is None else cut(where, sets[0], joined)
            gathered.add(task_id, support, query, _class_names(arrays, row))
    return gathered.task_set(image)


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
    pixels = default_pixels(task_set.pool)
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


def _checked_arrays(file: ArrayFile, naming: Naming) -> dict[str, Array]:
    """All arrays but the inputs, which are many: only what they are is checked here."""
    inputs = {names.inputs: file.form(names.inputs) for names in naming}
    arrays = {name: file.read(name) for name in file.names if name not in inputs}
    shapes = {name: shape for name, (shape, _) in inputs.items()}
    dtypes = {name: dtype for name, (_, dtype) in inputs.items()}
    for name, array in arrays.items():
        shapes[name], dtypes[name] = array.shape, array.dtype
    where = str(file.path)
    Forms(where, naming, shapes, dtypes, shared=1).check()
    check_texts(where, arrays)
    return arrays


def _ids(arrays: Mapping[str, Array], names: SetNames, row: int, task_id: str) -> list[str]:
    if names.ids in arrays:
        return [str(image_id) for image_id in arrays[names.ids][row]]
    slots = arrays[names.labels].shape[1]
    return [f"{task_id}/{names.called}/{index}" for index in range(slots)]


def _class_names(arrays: Mapping[str, Array], row: int) -> tuple[str, ...]:
    names = [str(name) for name in arrays["class_names"][row]] if "class_names" in arrays else []
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def _text(path: Path, values: Any) -> Array:
    """Text as an array that reads back as it was."""
    array = np.array(values, dtype=object)
    check_text(path, array.flat)
    return array.astype(str)
