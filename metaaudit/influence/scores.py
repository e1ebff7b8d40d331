"""Influences from one adjoint ``u`` a target: ``I = - u . d/d omega D F`` (positive = harmful)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from metaaudit.bilevel import Adaptation, Advance, weight_derivatives

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
    adaptation: Adaptation, direction: Tensor, advance: Advance = lambda _: None
) -> Scores:
    """``-(1/N) d/d omega [u . D L_k]`` for every instance (instance-IF, support and query).

    Args:
        adaptation: The training tasks and their adaptation.
        direction: ``u [n_params]``.
        advance: Told of progress.

    Returns:
        ``[n_instances]``, in the task set's order of instances.
    """
    return -weight_derivatives(adaptation, direction, advance) / len(adaptation.task_set)
