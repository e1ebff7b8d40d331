"""Truncated Neumann series, scaled by the largest eigenvalue."""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.linalg.solution import MatVec, Solution, Status, relative_residual

RISEN = 1.01


def largest_eigenvalue(
    matvec: MatVec, like: Tensor, *, iterations: int = 20, seed: int = 0
) -> float:
    """Estimates the largest magnitude of an eigenvalue by power iteration.

    Args:
        matvec: Applies the operator to the rows of ``[1, size]``.
        like: Any ``[n, size]`` tensor on the right device.
        iterations: Products with the operator.
        seed: Seed of the starting vector.
    """
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(1, like.shape[1], generator=generator, dtype=torch.float64)
    vector = vector.to(like.device)
    value = 0.0
    for _ in range(iterations):
        product = matvec(vector / vector.norm()).double()
        value = float(product.norm())
        if value == 0.0:
            break
        vector = product
    return value


def neumann(matvec: MatVec, rhs: Tensor, *, tolerance: float, max_iterations: int) -> Solution:
    """Solves ``A x = b`` by ``x <- x + (b - A x) / s``.

    After J steps this is the truncated series ``sum_j (I - A/s)^j b / s``. It converges if every
    eigenvalue of ``A`` lies in ``(0, 2 s)``; ``s`` is the power iteration's estimate of the largest
    one, raised by a tenth because power iteration approaches from below.

    Args:
        matvec: Applies ``A`` to the rows of ``[n_rhs, size]``.
        rhs: ``[n_rhs, size]``.
        tolerance: Relative residual at which a right-hand side is done.
        max_iterations: Number of terms J.

    Returns:
        The solution. If every eigenvalue is positive the residual falls at every step, so one that
        has risen is reported as divergence.
    """
    rhs = rhs.double()
    scale = 1.1 * largest_eigenvalue(matvec, rhs) or 1.0
    value = torch.zeros_like(rhs)
    residual = rhs
    left = relative_residual(residual, rhs)
    least = left
    history = [float(left.max())]
    iterations = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
    for _ in range(max_iterations):
        moving = (left > tolerance) & (left <= RISEN * least)
        if not bool(moving.any()):
            break
        value = value + torch.where(moving[:, None], residual / scale, 0.0)
        residual = rhs - matvec(value).double()
        left = relative_residual(residual, rhs)
        least = torch.minimum(left, least)
        iterations += moving
        history.append(float(left.max()))
    return Solution(
        value=value,
        status=tuple(
            _status(float(one), float(low), tolerance) for one, low in zip(left, least, strict=True)
        ),
        residual=tuple(left.tolist()),
        iterations=tuple(iterations.tolist()),
        history=tuple(history),
        solver="neumann",
    )


def _status(residual: float, least: float, tolerance: float) -> Status:
    if residual <= tolerance:
        return Status.CONVERGED
    # Written so that a residual that is not a number counts as risen.
    return Status.MAX_ITERATIONS if residual <= RISEN * least else Status.DIVERGED
