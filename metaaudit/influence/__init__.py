"""Influence of tasks and instances on the evaluation loss."""

from metaaudit.influence.outliers import (
    Outliers,
    bootstrap_interval,
    harmful_tasks,
    upper_outliers,
)
from metaaudit.influence.removal import Removal, removed_gradient, weight_gradient
from metaaudit.influence.scores import alignment, instance_influence, task_influence
from metaaudit.influence.self_influence import self_influence

__all__ = [
    "Outliers",
    "Removal",
    "alignment",
    "bootstrap_interval",
    "harmful_tasks",
    "instance_influence",
    "removed_gradient",
    "self_influence",
    "task_influence",
    "upper_outliers",
    "weight_gradient",
]
