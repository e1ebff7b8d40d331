"""Influences from one adjoint ``u`` a target: ``I = - u . d/d omega D F`` (positive = harmful)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

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


def alignment(gradients: npt.NDArray[np.floating]) -> Scores:
    """Cosine ``[n_tasks]`` of each task's total gradient and the mean of the others'.

    Args:
        gradients: ``[n_tasks, n_params]`` total gradients.
    """
    own = gradients.astype(np.float64)
    others = own.sum(axis=0) - own
    norms = np.linalg.norm(own, axis=1) * np.linalg.norm(others, axis=1)
    products = (own * others).sum(axis=1)
    cosine: Scores = np.divide(products, norms, out=np.zeros(len(own)), where=norms > 0)
    return cosine


def instance_influence(derivatives: Scores, n_tasks: int) -> Scores:
    """``-(1/N) d/d omega [u . D L_k]`` for every instance (instance-IF, support and query).

    Args:
        derivatives: ``[n_instances]``, as ``weight_derivatives`` gives them for ``u``.
        n_tasks: Number of training tasks.
    """
    return -derivatives / n_tasks
