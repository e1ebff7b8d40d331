"""How far the task-Fisher is from the exact total Hessian, along one direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metaaudit.bilevel.total_hessian import TotalHessian
from metaaudit.curvature import task_fisher_factor


@dataclass(frozen=True)
class CurvatureScale:
    """How the curvature compares with the exact total Hessian along one direction ``u``.

    Attributes:
        exact: ``u^T H u`` without damping, over the tasks looked at.
        approximate: The same with the task-Fisher.
        n_tasks: Number of tasks looked at.
    """

    exact: float
    approximate: float
    n_tasks: int


def curvature_scale(
    hessian: TotalHessian, gradients: Tensor, direction: Tensor, n_tasks: int = 16
) -> CurvatureScale:
    """Compares the task-Fisher with the exact Hessian along ``direction [n_params]``.

    Args:
        hessian: The exact total Hessian without shift.
        gradients: ``[n_tasks, n_params]`` total gradients.
        direction: ``u``.
        n_tasks: The comparison uses this many tasks, evenly spaced, since one exact product
            costs several passes over those it uses.
    """
    rows = torch.linspace(0, len(gradients) - 1, min(n_tasks, len(gradients))).long().tolist()
    unit = direction / (direction.norm() or 1.0)
    some = hessian.over(rows)
    factor = task_fisher_factor(gradients[rows], some.task_set.query_sizes)
    return CurvatureScale(
        exact=float(unit @ some(unit[None])[0]),
        approximate=float((factor @ unit).square().sum()),
        n_tasks=len(rows),
    )
