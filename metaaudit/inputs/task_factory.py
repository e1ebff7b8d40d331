"""One's own tasks: a callable named in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from metaaudit.config.tasks import TaskFactoryConfig
from metaaudit.errors import TaskSetError
from metaaudit.imports import Factory
from metaaudit.inputs.episode_names import OWN, TEXTS, Array, Forms, check_texts, required
from metaaudit.inputs.gathered import TaskGatherer, instances
from metaaudit.inputs.task_set import TaskSet

_KEYS = (*required(OWN), *TEXTS)
_RETURNS = "the training and the evaluation tasks, two iterables of mappings"


def load_task_factory(config: TaskFactoryConfig) -> tuple[TaskSet, TaskSet]:
    """Calls the factory and takes its tasks.

    A task is a mapping with the keys ``support_x`` ``[n, ...]``, ``support_y`` ``[n]``,
    ``query_x`` ``[m, ...]`` and ``query_y`` ``[m]``, and, if they are known, ``task_id``,
    ``support_id`` ``[n]``, ``query_id`` ``[m]`` and ``class_names`` ``[ways]``: NumPy's arrays or
    what it makes arrays of. Tasks may differ in their ways and in how many instances they have.

    Args:
        config: The callable and its arguments. Its iterables have to end; one task is asked for at
            a time, and its inputs are copied.

    Raises:
        TaskSetError: The callable fails or returns something else, or a task cannot be used.
    """
    factory = Factory("tasks", config.factory, config.path, TaskSetError)
    made = factory.called(config.args)
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        what = f"returned a {type(made).__name__}"
        what += f" of {len(made)}" if isinstance(made, (tuple, list)) else ""
        raise TaskSetError(factory.where, what, _RETURNS)
    train, evaluation = (
        _task_set(factory, f"{factory.where}: {side}", tasks, config)
        for side, tasks in zip(("training", "evaluation"), made, strict=True)
    )
    if train.pool.input_shape != evaluation.pool.input_shape:
        raise TaskSetError(
            f"{factory.where}: evaluation",
            f"has inputs of shape {evaluation.pool.input_shape}",
            f"{train.pool.input_shape}, as training",
        )
    return train, evaluation


def _task_set(factory: Factory, where: str, tasks: Any, config: TaskFactoryConfig) -> TaskSet:
    gathered = TaskGatherer(where)
    for row, task in enumerate(_each(factory, where, tasks)):
        place = f"{where} task {row}"
        if not isinstance(task, Mapping):
            raise TaskSetError(place, f"is a {type(task).__name__}", "a mapping, as of a dict")
        _add(gathered, place, _arrays(factory, place, task), f"task-{row}")
    return gathered.task_set(config.image)


def _each(factory: Factory, where: str, tasks: Any) -> Iterator[Any]:
    """The tasks, each made as any code of the user's is run."""
    end = object()
    with factory.running():
        try:
            iterator = iter(tasks)
        except TypeError:
            raise TaskSetError(where, f"is a {type(tasks).__name__}", _RETURNS) from None
    while True:
        with factory.running():
            task = next(iterator, end)
        if task is end:
            return
        yield task


def _arrays(factory: Factory, place: str, task: Mapping[Any, Any]) -> dict[str, Array]:
    missing = [name for name in required(OWN) if name not in task]
    if missing:
        raise TaskSetError(place, f"lacks {', '.join(missing)}", ", ".join(required(OWN)))
    arrays = {}
    for name in task:
        if name not in _KEYS:
            raise TaskSetError(place, f"has the unknown key {name!r}", f"only {', '.join(_KEYS)}")
        with factory.running():
            value = task[name]
            try:
                arrays[name] = np.asarray(value)
            except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor on a GPU
                raise TaskSetError(
                    f"{place}: {name}",
                    f"is a {type(value).__name__} that NumPy makes no array of ({error})",
                    "an array",
                ) from None
    return arrays


def _add(gathered: TaskGatherer, place: str, arrays: Mapping[str, Array], task_id: str) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    dtypes = {name: array.dtype for name, array in arrays.items()}
    Forms(place, OWN, shapes, dtypes, shared=0).check()
    check_texts(place, arrays)
    task_id = str(arrays["task_id"]) if "task_id" in arrays else task_id
    sets = []
    for names in OWN:
        labels = arrays[names.labels]
        ids = [f"{task_id}/{names.called}/{index}" for index in range(len(labels))]
        if names.ids in arrays:
            ids = [str(image_id) for image_id in arrays[names.ids]]
        most_ways = len(arrays["support_y"])
        sets.append(instances(place, names.called, arrays[names.inputs], labels, ids, most_ways))
    class_names = [str(name) for name in arrays.get("class_names", ())]
    gathered.add(task_id, sets[0], sets[1], class_names)
