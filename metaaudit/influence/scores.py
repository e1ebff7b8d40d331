"""Influences from one adjoint ``u`` a target: ``I = - u . d/d omega D F`` (positive = harmful)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from metaaudit.bilevel import Advance, Batching, Objective, weight_derivatives
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params

Scores = npt.NDArray[np.float64]


def task_influence(gradients: Tensor, directions: Tensor) -> Scores:
    """``-(1/N) u_t . D L_k`` for every task and target (task-IF).

    Args:
        gradients: ``[n_tasks, n_params]`` total gradients.
        directions: ``[n_targets, n_params]`` adjoints.

    Returns:
        ``[n_tasks, n_targets]``.
    """
    influence: Scores = (-(gradients.double() @ directions.T) / len(gradients)).cpu().numpy()
    return influence


def instance_influence(
    objective: Objective,
    params: Params,
    direction: Tensor,
    task_set: TaskSet,
    batching: Batching,
    advance: Advance = lambda _: None,
) -> Scores:
    """``-(1/N) d/d omega [u . D L_k]`` for every instance (instance-IF, support and query).

    Args:
        objective: The bilevel objective.
        params: Meta-parameters.
        direction: ``u [n_params]``.
        task_set: The training tasks.
        batching: How many are computed at once, and where.
        advance: Told of progress.

    Returns:
        ``[n_instances]``, in the task set's order of instances.
    """
    derivatives = weight_derivatives(objective, params, direction, task_set, batching, advance)
    return -derivatives / len(task_set)
