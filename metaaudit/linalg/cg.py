"""Conjugate gradients for several right-hand sides in lockstep."""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.linalg.solution import MatVec, Solution, Status, relative_residual


def cg(matvec: MatVec, rhs: Tensor, *, tolerance: float, max_iterations: int) -> Solution:
    """Solves ``A x = b`` for a symmetric positive definite ``A`` (Hestenes and Stiefel, 1952).

    A direction ``p`` with ``p . A p <= 0`` shows that ``A`` is not positive definite: that
    right-hand side stops there with its last iterate, the minimiser of ``x . A x / 2 - b . x`` over
    the directions met so far, and says so (Steihaug, 1983).

    Args:
        matvec: Applies ``A`` to the rows of ``[n_rhs, size]``.
        rhs: ``[n_rhs, size]``.
        tolerance: Relative residual at which a right-hand side is done.
        max_iterations: Bound on the products with ``A``.

    Returns:
        The solution; its residuals are recomputed from ``b - A x``, not updated.
    """
    rhs = rhs.double()
    value = torch.zeros_like(rhs)
    residual = rhs.clone()
    direction = residual.clone()
    square = (residual * residual).sum(1)
    left = relative_residual(residual, rhs)
    done = left <= tolerance
    indefinite = torch.zeros_like(done)
    iterations = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
    history = [float(left.max())]
    for _ in range(max_iterations):
        moving = ~(done | indefinite)
        if not bool(moving.any()):
            break
        product = torch.zeros_like(rhs)
        product[moving] = matvec(direction[moving]).double()
        curvature = (direction * product).sum(1)
        indefinite |= moving & (curvature <= 0)
        moving &= ~indefinite
        step = torch.where(moving, square / curvature.where(moving, 1.0), 0.0)
        value += step[:, None] * direction
        residual -= step[:, None] * product
        new_square = (residual * residual).sum(1)
        ratio = torch.where(moving, new_square / square.where(square > 0, 1.0), 0.0)
        direction = torch.where(moving[:, None], residual + ratio[:, None] * direction, direction)
        square = new_square
        iterations += moving
        left = relative_residual(residual, rhs)
        done |= moving & (left <= tolerance)
        history.append(float(left.max()))
    actual = relative_residual(rhs - matvec(value).double(), rhs)
    return Solution(
        value=value,
        status=tuple(
            _status(bool(met), bool(bad), float(gap), tolerance)
            for met, bad, gap in zip(done, indefinite, actual, strict=True)
        ),
        residual=tuple(actual.tolist()),
        iterations=tuple(iterations.tolist()),
        history=tuple(history),
        solver="cg",
    )


def _status(met: bool, indefinite: bool, residual: float, tolerance: float) -> Status:
    if indefinite:
        return Status.NEGATIVE_CURVATURE
    if not met:
        return Status.MAX_ITERATIONS
    # The recursion met the tolerance; it drifts from the true residual by the products' rounding.
    return Status.CONVERGED if residual <= 10 * tolerance else Status.STAGNATED
