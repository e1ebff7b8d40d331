"""Conjugate gradients for several right-hand sides in lockstep."""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.linalg.solution import MatVec, Solution, Status, relative_residual


def cg(matvec: MatVec, rhs: Tensor, *, tolerance: float, max_iterations: int) -> Solution:
    """Solves ``A x = b`` for a symmetric positive definite ``A`` (Hestenes and Stiefel, 1952).

    A direction ``p`` with ``p . A p <= 0`` shows that ``A`` is not positive definite: that
    right-hand side stops there with its last iterate and says so.

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
    done = relative_residual(residual, rhs) <= tolerance
    indefinite = torch.zeros_like(done)
    iterations = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
    history = [float(relative_residual(residual, rhs).max())]
    for _ in range(max_iterations):
        if bool((done | indefinite).all()):
            break
        product = matvec(direction).double()
        curvature = (direction * product).sum(1)
        indefinite |= ~done & (curvature <= 0)
        moving = ~(done | indefinite)
        step = torch.where(moving, square / curvature.where(moving, 1.0), 0.0)
        value += step[:, None] * direction
        residual -= step[:, None] * product
        new_square = (residual * residual).sum(1)
        ratio = torch.where(moving, new_square / square.where(square > 0, 1.0), 0.0)
        direction = torch.where(moving[:, None], residual + ratio[:, None] * direction, direction)
        square = new_square
        iterations += moving
        done |= moving & (relative_residual(residual, rhs) <= tolerance)
        history.append(float(relative_residual(residual, rhs).max()))
    actual = relative_residual(rhs - matvec(value).double(), rhs)
    return Solution(
        value=value,
        status=tuple(
            _status(bool(bad), float(left), tolerance)
            for bad, left in zip(indefinite, actual, strict=True)
        ),
        residual=tuple(actual.tolist()),
        iterations=tuple(iterations.tolist()),
        history=tuple(history),
        solver="cg",
    )


def _status(indefinite: bool, residual: float, tolerance: float) -> Status:
    if indefinite:
        return Status.NEGATIVE_CURVATURE
    # The recursion drifts from the true residual by rounding, so a factor of ten is allowed.
    return Status.CONVERGED if residual <= 10 * tolerance else Status.MAX_ITERATIONS
