"""Numbers that are not finite end a command and name where they arose."""

from __future__ import annotations

import numpy as np
import torch

from metaaudit.errors import IncompleteError
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Layout


def check_finite(stage: str, task_set: TaskSet, *values: np.ndarray) -> None:
    """Refuses numbers that are not finite, one a task or one an instance, naming a task.

    Raises:
        IncompleteError: There is one.
    """
    owners = np.array([row for row, _, _ in task_set.instances()])
    for array in values:
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            row = bad[0] if len(array) == len(task_set) else owners[bad[0]]
            raise _error(stage, task_set, int(row))


def check_gradients(stage: str, task_set: TaskSet, rows: np.ndarray, layout: Layout) -> None:
    """Refuses gradients that are not finite, naming a task and its parameters.

    Args:
        stage: What computed them.
        task_set: The tasks.
        rows: ``[n_tasks, ..., n_params]``.
        layout: Of the parameters.

    Raises:
        IncompleteError: There is one.
    """
    for row, gradient in enumerate(rows):
        if np.isfinite(gradient).all():
            continue
        parts = layout.split(torch.from_numpy(gradient))
        names = [name for name, part in parts.items() if not bool(part.isfinite().all())]
        where = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} others"
        raise _error(stage, task_set, row, f", in its gradient in {where}")


def _error(stage: str, task_set: TaskSet, row: int, where: str = "") -> IncompleteError:
    return IncompleteError(
        stage,
        f"gave a number that is not finite for task {task_set.tasks[row].task_id}{where}",
        "finite losses and gradients",
        "lower learner.inner_lr, or use compute.dtype: float64",
    )
