"""What task sets hold, and what about them is suspicious."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.checkpoints.names import listed
from metaaudit.inputs.task_set import SETS, Ints, Task, TaskSet

SHOWN = 3


def data_lines(train: TaskSet, evaluation: TaskSet) -> list[str]:
    """Classes, tasks, shapes, values and the balance of labels."""
    return [
        f"training tasks: {_tasks(train)}",
        f"evaluation tasks: {_tasks(evaluation)}",
        f"classes: {_classes(train)} in training, {_classes(evaluation)} in evaluation",
        f"inputs: {_values(train)}",
        f"labels: {_balance(train)} in training, {_balance(evaluation)} in evaluation",
    ]


def data_warnings(train: TaskSet, evaluation: TaskSet) -> list[str]:
    """Leakage between the two, and inputs in both sets of a task."""
    found = []
    seen, held_out = _digests(train), _digests(evaluation)
    shared = set(seen.values()) & set(held_out.values())
    if shared:
        found.append(f"{len(shared)} inputs are in training and in evaluation tasks")
    classes = sorted(_class_names(train) & _class_names(evaluation))
    if classes and not train.labelled:
        found.append(
            f"{len(classes)} classes are in training and in evaluation tasks: {listed(classes)}"
        )
    for which, task_set, digests in (
        ("training", train, seen),
        ("evaluation", evaluation, held_out),
    ):
        doubled = [task.task_id for task in task_set.tasks if _doubled(task, digests)]
        if doubled:
            found.append(
                f"{len(doubled)} {which} tasks have an input in both support and query: "
                f"{listed(doubled)}"
            )
    return found


def _doubled(task: Task, digests: dict[int, bytes]) -> bool:
    support, query = ({digests[row] for row in task.rows(name).tolist()} for name in SETS)
    return bool(support & query)


def _tasks(task_set: TaskSet) -> str:
    shapes = Counter((*task.shape, task.ways) for task in task_set.tasks)
    sizes = ", ".join(
        f"{ways}-way with {n} support and {m} query" if n else f"batches of {m}"
        for n, m, ways in sorted(shapes)[:SHOWN]
    )
    more = f" and {len(shapes) - SHOWN} other sizes" if len(shapes) > SHOWN else ""
    return f"{len(task_set)}, {task_set.n_instances} instances; {sizes}{more}"


def _classes(task_set: TaskSet) -> str:
    names = _class_names(task_set)
    return str(len(names)) if names else "unnamed"


def _class_names(task_set: TaskSet) -> set[str]:
    return {name for task in task_set.tasks for name in task.class_names}


def _values(task_set: TaskSet) -> str:
    task = task_set.tasks[0]
    values = task_set.pool.values(np.concatenate([task.rows(name) for name in SETS]))
    return (
        f"shape {list(task_set.pool.input_shape)}, values {values.min():.3g} to "
        f"{values.max():.3g} (mean {values.mean():.3g}) in the first task; "
        f"{len(task_set.pool.pixels)} different ones in training"
    )


def _balance(task_set: TaskSet) -> str:
    """The fewest and the most instances of a class in a set of a task, or in a labelled set."""
    if task_set.labelled:
        labels = np.concatenate([task.query_y for task in task_set.tasks])
        return f"{_range([labels])} a class"
    support, query = (_range([task.labels(name) for task in task_set.tasks]) for name in SETS)
    return f"{support} support and {query} query a class"


def _range(sets: list[Ints]) -> str:
    counts = [np.unique(labels, return_counts=True)[1] for labels in sets]
    fewest, most = min(int(c.min()) for c in counts), max(int(c.max()) for c in counts)
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def _digests(task_set: TaskSet) -> dict[int, bytes]:
    """By row, digests of the inputs as the model sees them: ids say nothing across files."""
    used = np.unique(np.concatenate([task.rows(name) for task in task_set.tasks for name in SETS]))
    return {int(row): _digest(task_set.pool.values(row)) for row in used}


def _digest(values: npt.NDArray[np.floating]) -> bytes:
    # In one precision, and with 0 for -0, for files that hold the same inputs in another type.
    return hashlib.sha256((values.astype(np.float32) + 0.0).tobytes()).digest()
