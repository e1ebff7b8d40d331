"""Truncated Neumann series, scaled by the largest eigenvalue."""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.linalg.lanczos import lanczos
from metaaudit.linalg.solution import MatVec, Solution, Status, histories, relative_residual

RISEN = 1.01
# Ritz values approach the largest eigenvalue from below.
SCALE_MARGIN = 1.1


def neumann(matvec: MatVec, rhs: Tensor, *, tolerance: float, max_iterations: int) -> Solution:
    """Solves ``A x = b`` by ``x <- x + (b - A x) / s``.

    After J steps this is the truncated series ``sum_j (I - A/s)^j b / s``. It converges if every
    eigenvalue of ``A`` lies in ``(0, 2 s)``; ``s`` is 1.1 times the largest magnitude of a Ritz
    value of ``A``, which may be indefinite. For a positive ``A`` that fails only if Lanczos misses
    the largest eigenvalue by more than 54 percent: see there how unlikely that is.

    Args:
        matvec: Applies ``A``, the same for every row, to the rows of ``[n_rhs, size]``.
        rhs: ``[n_rhs, size]``.
        tolerance: Relative residual at which a right-hand side is done.
        max_iterations: Number of terms J.

    Returns:
        The solution. If every eigenvalue is positive the residual falls at every step, so one that
        has risen is reported as divergence.
    """
    rhs = rhs.double()
    scale = SCALE_MARGIN * lanczos(matvec, rhs).magnitude or 1.0
    value = torch.zeros_like(rhs)
    residual = rhs
    left = [relative_residual(residual, rhs)]
    least = left[0]
    iterations = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
    for _ in range(max_iterations):
        moving = (left[-1] > tolerance) & (left[-1] <= RISEN * least)
        if not bool(moving.any()):
            break
        rows = moving[:, None]
        value = value + torch.where(rows, residual / scale, 0.0)
        product = matvec(value.where(rows, 0.0)).double()
        residual = torch.where(rows, rhs - product, residual)
        left.append(relative_residual(residual, rhs))
        least = torch.minimum(left[-1], least)
        iterations += moving
    return Solution(
        value=value,
        status=tuple(
            _status(float(one), float(low), tolerance)
            for one, low in zip(left[-1], least, strict=True)
        ),
        residual=tuple(left[-1].tolist()),
        iterations=tuple(iterations.tolist()),
        history=histories(left, iterations),
        solver="neumann",
    )


def _status(residual: float, least: float, tolerance: float) -> Status:
    if residual <= tolerance:
        return Status.CONVERGED
    # Written so that a residual that is not a number counts as risen.
    return Status.MAX_ITERATIONS if residual <= RISEN * least else Status.DIVERGED
