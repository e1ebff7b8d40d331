"""Influence of tasks and instances on the evaluation loss."""

from metaaudit.influence.outliers import discoveries, harmful_tasks, laplace_tail
from metaaudit.influence.scores import instance_influence, task_influence
from metaaudit.influence.self_influence import self_influence

__all__ = [
    "discoveries",
    "harmful_tasks",
    "instance_influence",
    "laplace_tail",
    "self_influence",
    "task_influence",
]
