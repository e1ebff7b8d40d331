"""What images and tasks consist of, whatever they are called and in whatever order."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from metaaudit.inputs.task_set import SETS, Task, TaskSet


def image_contents(task_set: TaskSet) -> dict[int, str]:
    """SHA-256 of the pixels of each image that is in a task, by its row in the pool."""
    pool = task_set.pool
    used = np.unique(np.concatenate([task.rows(name) for task in task_set.tasks for name in SETS]))
    form = f"{pool.pixels.dtype.str}{pool.input_shape}".encode()
    return {
        row: hashlib.sha256(form + pool.pixels[row].tobytes()).hexdigest() for row in used.tolist()
    }


def task_content(task: Task, images: dict[int, str]) -> str:
    """SHA-256 of a task's images and of which of them share a set and a label.

    Neither the order of instances nor the numbers of the labels count.
    """
    classes: dict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for place, name in enumerate(SETS):
        for row, label in zip(task.rows(name).tolist(), task.labels(name).tolist(), strict=True):
            classes[label][place].append(images[row])
    parts = sorted([sorted(support), sorted(query)] for support, query in classes.values())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def duplicates(task_set: TaskSet, images: dict[int, str]) -> list[tuple[str, ...]]:
    """For each task the ids of the other tasks with the same images, labelled in any way."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    keys = []
    for task in task_set.tasks:
        rows = np.concatenate([task.support, task.query]).tolist()
        keys.append(tuple(sorted(images[row] for row in rows)))
        groups[keys[-1]].append(task.task_id)
    return [
        tuple(other for other in groups[key] if other != task.task_id)
        for key, task in zip(keys, task_set.tasks, strict=True)
    ]
