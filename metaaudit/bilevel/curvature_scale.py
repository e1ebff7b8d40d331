"""How far an approximation is from the exact total Hessian, along one direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metaaudit.bilevel.total_hessian import TotalHessian
from metaaudit.linalg import MatVec

LOOKED_AT = 16
"""Tasks, at most."""


@dataclass(frozen=True)
class CurvatureScale:
    """How the curvature compares with the exact total Hessian along one direction ``u``.

    Attributes:
        exact: ``u^T H u`` without damping, over the tasks looked at.
        approximate: The same with the approximation.
        n_tasks: Number of tasks looked at.
    """

    exact: float
    approximate: float
    n_tasks: int


def curvature_scale(
    hessian: TotalHessian,
    approximation: Callable[[list[int]], MatVec],
    direction: Tensor,
    n_tasks: int = LOOKED_AT,
) -> CurvatureScale:
    """Compares an approximation with the exact Hessian along ``direction [n_params]``.

    Args:
        hessian: The exact total Hessian without shift.
        approximation: Takes rows of tasks to the approximation over them, without shift.
        direction: ``u``.
        n_tasks: The comparison uses this many tasks, evenly spaced, since one exact product
            costs several passes over those it uses.
    """
    total = len(hessian.adaptation.task_set)
    rows = torch.linspace(0, total - 1, min(n_tasks, total)).long().tolist()
    unit = (direction / (direction.norm() or 1.0))[None]
    return CurvatureScale(
        exact=float((unit * hessian.over(rows)(unit)).sum()),
        approximate=float((unit * approximation(rows)(unit)).sum()),
        n_tasks=len(rows),
    )
