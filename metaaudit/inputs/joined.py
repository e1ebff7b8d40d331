"""Tasks that hold support and query together, cut in two."""

from __future__ import annotations

import numpy as np

from metaaudit.config.tasks import JoinedConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.gathered import Instances


def cut(where: object, task: Instances, config: JoinedConfig) -> tuple[Instances, Instances]:
    """Support and query of a task, each in the order of the task.

    Where each class has ``2 * shots`` instances, one class after another, ``interleaved`` is what
    learn2learn's examples do by ``indices[np.arange(shots * ways) * 2] = True``.

    Args:
        where: What to call the task in messages.
        task: All its instances.
        config: How many are support, and which.

    Raises:
        TaskSetError: A class has too few instances.
    """
    step = 2 if config.order == "interleaved" else 1
    needed = step * (config.shots - 1) + 1
    support = np.zeros(len(task.labels), dtype=bool)
    for label in np.unique(task.labels):
        rows = np.flatnonzero(task.labels == label)
        if len(rows) < needed:
            raise TaskSetError(
                where,
                f"class {label} has {len(rows)} instances",
                f"at least {needed} for tasks.joined.shots: {config.shots}, {config.order}",
                "lower tasks.joined.shots",
            )
        support[rows[:needed:step]] = True
    return task.picked(support), task.picked(~support)
