"""Restarted GMRES for several right-hand sides in lockstep: matrices that are not symmetric."""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.linalg.solution import MatVec, Solution, Status, histories, relative_residual

RESTART = 50
"""Krylov vectors that are kept at least; a restart loses what they hold."""

KRYLOV_BYTES = 1 << 30
"""More of them are kept where this has room for them."""


def gmres(matvec: MatVec, rhs: Tensor, *, tolerance: float, max_iterations: int) -> Solution:
    """Solves ``A x = b`` for any invertible ``A`` (Saad and Schultz, 1986).

    Args:
        matvec: Applies ``A`` to the rows of ``[n_rhs, size]``.
        rhs: ``[n_rhs, size]``.
        tolerance: Relative residual at which a right-hand side is done.
        max_iterations: Bound on the products with ``A``, not counting one a restart.

    Returns:
        The solution; its residuals are recomputed from ``b - A x``. A right-hand side whose
        residual a whole cycle of products did not lower is reported as stagnated, one whose numbers
        stop being finite as divergence, and its value is NaN.
    """
    rhs = rhs.double()
    longest = min(max(RESTART, KRYLOV_BYTES // (8 * rhs.numel() or 1)), rhs.shape[1])
    value, residual = torch.zeros_like(rhs), rhs
    left = [relative_residual(residual, rhs)]
    iterations = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
    stuck = torch.zeros(len(rhs), dtype=torch.bool, device=rhs.device)
    spent = 0
    while spent < max_iterations:
        moving = (left[-1] > tolerance) & left[-1].isfinite() & ~stuck
        if not bool(moving.any()):
            break
        depth = min(longest, max_iterations - spent)
        start = residual.where(moving[:, None], 0.0)
        found, norms = _cycle(matvec, start, depth, tolerance * rhs.norm(dim=1))
        spent += len(norms)
        iterations += moving * len(norms)
        scale = rhs.norm(dim=1).clamp_min(torch.finfo(rhs.dtype).tiny)
        left += [torch.where(moving, norm / scale, left[-1]) for norm in norms]
        value = value + found
        product = matvec(value.where(moving[:, None], 0.0)).double()
        residual = torch.where(moving[:, None], rhs - product, residual)
        actual = relative_residual(residual, rhs)
        if depth == longest:
            stuck |= moving & (actual > (1 - 1e-6) * relative_residual(start, rhs))
        left[-1] = torch.where(moving, actual, left[-1])
    value[~left[-1].isfinite()] = torch.nan
    return Solution(
        value=value,
        status=tuple(_status(r, bool(s), tolerance) for r, s in zip(left[-1], stuck, strict=True)),
        residual=tuple(left[-1].tolist()),
        iterations=tuple(iterations.tolist()),
        history=histories(left, iterations),
        solver="gmres",
    )


def _cycle(
    matvec: MatVec, start: Tensor, depth: int, enough: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The correction ``[n_rhs, size]`` from up to ``depth`` products, and residual norms."""
    first = start.norm(dim=1)
    basis = [_unit(start, first)]
    projected = start.new_zeros(len(start), depth + 1, depth)
    target = start.new_zeros(len(start), depth + 1)
    target[:, 0] = first
    norms: list[Tensor] = []
    steps = 0
    while steps < depth and (not norms or bool((norms[-1] > enough).any())):
        vector = matvec(basis[-1]).double()
        for _ in range(2):  # once leaves what rounding brings back in
            for row, known in enumerate(basis):
                along = (vector * known).sum(1)
                projected[:, row, steps] += along
                vector = vector - along[:, None] * known
        length = vector.norm(dim=1)
        projected[:, steps + 1, steps] = length
        steps += 1
        weights = _least_squares(projected[:, : steps + 1, :steps], target[:, : steps + 1])
        missed = target[:, : steps + 1] - _times(projected[:, : steps + 1, :steps], weights)
        norms.append(missed.norm(dim=1))
        # Those that are solved ask for no more products.
        basis.append(_unit(vector, length).where((norms[-1] > enough)[:, None], 0.0))
    correction = torch.stack(basis[:steps], dim=1).mT @ weights[..., None]
    return correction.squeeze(-1), norms


def _least_squares(matrix: Tensor, target: Tensor) -> Tensor:
    # By the pseudo-inverse: rows that are finished, or whose Krylov space is, have zero columns.
    finite = torch.nan_to_num(matrix)
    return _times(torch.linalg.pinv(finite), target)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None]).squeeze(-1)


def _unit(vector: Tensor, length: Tensor) -> Tensor:
    scale = length.where(length > 0, 1.0)
    return vector / scale[:, None]


def _status(residual: Tensor, stuck: bool, tolerance: float) -> Status:
    if residual <= tolerance:
        return Status.CONVERGED
    if not residual.isfinite():
        return Status.DIVERGED
    return Status.STAGNATED if stuck else Status.MAX_ITERATIONS
