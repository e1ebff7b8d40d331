"""Which tasks or instances a retraining lacks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from metaaudit.inputs.task_set import SetName, TaskSet

Place = tuple[int, SetName, int]
"""An occurrence of an image, as ``TaskSet.instances`` has it: task row, set, index."""


def subsets(n_tasks: int, fraction: float, count: int, seed: int) -> list[list[int]]:
    """Random subsets of tasks, each as rows in ascending order.

    A subset depends on its number, the seed and the arguments that give its size alone: more of
    them leave the first ones as they were.

    Args:
        n_tasks: How many tasks there are.
        fraction: Share of them in a subset.
        count: How many subsets.
        seed: Of the choice.
    """
    size = round(fraction * n_tasks)
    return [
        np.sort(np.random.default_rng([seed, s]).permutation(n_tasks)[:size]).tolist()
        for s in range(count)
    ]


def same_steps_epochs(epochs: int, n_all: int, n_sub: int, batch: int) -> int:
    """Epochs over ``n_sub`` tasks with at least the optimiser steps of ``epochs`` over ``n_all``.

    >>> same_steps_epochs(40, 200, 100, 10), same_steps_epochs(40, 200, 190, 25)
    (80, 40)
    """
    return math.ceil(epochs * math.ceil(n_all / batch) / math.ceil(n_sub / batch))


def without_tasks(task_set: TaskSet, rows: Iterable[int]) -> TaskSet:
    """The tasks that are not in some rows."""
    gone = set(rows)
    return task_set.select([row for row in range(len(task_set)) if row not in gone])


def removable(task_set: TaskSet, places: Iterable[Place]) -> list[Place]:
    """Those of some instances that can be removed together.

    The last instance of a class in a support set stays, and so does the last query instance of a
    task: the first ones of ``places`` go.
    """
    gone: set[Place] = set()
    left: dict[tuple[int, SetName, int], int] = {}
    found = []
    for row, name, index in places:
        # Query instances of all classes count together.
        labels = task_set.tasks[row].labels(name) * (name == "support")
        group = row, name, int(labels[index])
        count = left.setdefault(group, int((labels == labels[index]).sum()))
        if count > 1 and (row, name, index) not in gone:
            left[group] -= 1
            gone.add((row, name, index))
            found.append((row, name, index))
    return found


def without_instances(task_set: TaskSet, places: Sequence[Place]) -> TaskSet:
    """The tasks without some instances, less those that are not ``removable``."""
    gone: dict[tuple[int, SetName], list[int]] = {}
    for row, name, index in removable(task_set, places):
        gone.setdefault((row, name), []).append(index)
    tasks = list(task_set.tasks)
    for (row, name), indices in gone.items():
        kept_rows, kept_labels = (
            np.delete(values, indices)
            for values in (tasks[row].rows(name), tasks[row].labels(name))
        )
        if name == "support":
            tasks[row] = replace(tasks[row], support=kept_rows, support_y=kept_labels)
        else:
            tasks[row] = replace(tasks[row], query=kept_rows, query_y=kept_labels)
    return TaskSet(task_set.pool, tuple(tasks))
