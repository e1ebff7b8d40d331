"""Preconditioned conjugate gradients for several right-hand sides in lockstep."""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.linalg.solution import MatVec, Solution, Status, histories, relative_residual

_MOVING, _MET, _CURVED, _UNUSABLE, _LOST = range(5)
_STATUS = (
    Status.MAX_ITERATIONS,
    Status.CONVERGED,
    Status.NEGATIVE_CURVATURE,
    Status.INDEFINITE_PRECONDITIONER,
    Status.DIVERGED,
)


def cg(
    matvec: MatVec,
    rhs: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    preconditioner: MatVec | None = None,
) -> Solution:
    """Solves ``A x = b`` for a symmetric positive definite ``A`` (Hestenes and Stiefel, 1952).

    A direction ``p`` with ``p . A p <= 0`` shows that ``A`` is not positive definite: that
    right-hand side stops there with its last iterate, the minimiser of ``x . A x / 2 - b . x`` over
    the directions met so far, and says so (Steihaug, 1983). In the same way a residual ``r`` with
    ``r . M^-1 r <= 0`` shows that the preconditioner is not.

    Args:
        matvec: Applies ``A`` to the rows of ``[n_rhs, size]``; ``A`` may differ from row to row.
        rhs: ``[n_rhs, size]``.
        tolerance: Relative residual ``||b - A x|| / ||b||`` at which a right-hand side is done,
            with a preconditioner too.
        max_iterations: Bound on the products with ``A``.
        preconditioner: Applies ``M^-1``, symmetric positive definite and close to ``A^-1``, to the
            rows of ``[n_rhs, size]``; the identity by default.

    Returns:
        The solution; its residuals are recomputed from ``b - A x``, those of its history updated.
        A row whose numbers stop being finite is reported as divergence, and its value is NaN.
    """
    rhs = rhs.double()
    residual = rhs.clone()
    value, direction = torch.zeros_like(rhs), torch.zeros_like(rhs)
    energy = torch.ones_like(rhs[:, 0])  # r . M^-1 r
    left = [relative_residual(residual, rhs)]
    outcome = _judge(left[0], tolerance)
    iterations = torch.zeros_like(outcome)
    for _ in range(max_iterations):
        moving = outcome == _MOVING
        if not bool(moving.any()):
            break
        step = residual.where(moving[:, None], 0.0)
        if preconditioner:
            step = preconditioner(step).double()
        last, energy = energy, (residual * step).sum(1)
        outcome[moving & ~((energy > 0) & energy.isfinite())] = _UNUSABLE
        moving = outcome == _MOVING
        direction = torch.where(moving[:, None], step + (energy / last)[:, None] * direction, 0.0)
        product = matvec(direction).double()
        curvature = (direction * product).sum(1)
        outcome[moving & (curvature <= 0)] = _CURVED
        moving = outcome == _MOVING
        length = torch.where(moving, energy / curvature, 0.0)
        value += length[:, None] * direction
        residual -= length[:, None] * product
        iterations += moving
        left.append(relative_residual(residual, rhs))
        outcome = torch.where(moving, _judge(left[-1], tolerance), outcome)
    value[outcome == _LOST] = torch.nan
    actual = relative_residual(rhs - matvec(value).double(), rhs).tolist()
    ends = zip(outcome.tolist(), actual, strict=True)
    return Solution(
        value=value,
        status=tuple(_status(code, gap, tolerance) for code, gap in ends),
        residual=tuple(actual),
        iterations=tuple(iterations.tolist()),
        history=histories(left, iterations),
        solver="cg",
    )


def _judge(left: Tensor, tolerance: float) -> Tensor:
    """Codes ``[n_rhs]``: met, lost, or moving on."""
    outcome = torch.full_like(left, _MOVING, dtype=torch.int64)
    outcome[left <= tolerance] = _MET
    outcome[~left.isfinite()] = _LOST
    return outcome


def _status(code: int, residual: float, tolerance: float) -> Status:
    # The recursion met the tolerance; it drifts from the true residual by the products' rounding.
    if code == _MET and not residual <= 10 * tolerance:
        return Status.STAGNATED
    return _STATUS[code]
