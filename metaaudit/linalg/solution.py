"""What a solver returns: never a bare tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

MatVec = Callable[[Tensor], Tensor]
"""``[n_rhs, size] -> [n_rhs, size]``: an operator applied to each row; symmetric, but for GMRES.

Row ``r`` of the result depends on row ``r`` alone, and a row of zeros gives zeros. ``cg`` always
hands over all rows, zeros for the right-hand sides that are finished: its operator may be another
matrix for each row, and one that skips rows of zeros makes them cost nothing. All else here takes
the same matrix for every row.
"""


class Status(StrEnum):
    """How a solve ended.

    ``stagnated`` is at the precision of the products with the operator;
    ``indefinite-preconditioner`` stopped at a residual ``r`` where ``r . M^-1 r`` is not a positive
    number.
    """

    CONVERGED = "converged"
    MAX_ITERATIONS = "max-iterations"
    STAGNATED = "stagnated"
    NEGATIVE_CURVATURE = "negative-curvature"
    INDEFINITE_PRECONDITIONER = "indefinite-preconditioner"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Solution:
    """Solution of ``A x_r = b_r`` for several right-hand sides ``r``.

    Attributes:
        value: ``[n_rhs, size]``, float64.
        status: How each solve ended.
        residual: ``||b - A x|| / ||b||`` of each, 0 where ``b = 0``.
        iterations: Iterations of each; 0 for direct solvers.
        history: Relative residuals of each as the solver followed them, the initial one and then
            one after each of its iterations; ``()`` of each for direct solvers.
        solver: Name of the solver that gave the value.
    """

    value: Tensor
    status: tuple[Status, ...]
    residual: tuple[float, ...]
    iterations: tuple[int, ...]
    history: tuple[tuple[float, ...], ...]
    solver: str

    @property
    def converged(self) -> bool:
        """Whether every right-hand side converged."""
        return all(status is Status.CONVERGED for status in self.status)

    @property
    def worst_history(self) -> tuple[float, ...]:
        """Largest relative residual after each iteration; those finished count with their last."""
        histories = [one for one in self.history if one]
        return tuple(
            max((one[min(step, len(one) - 1)] for one in histories), key=_or_nan)
            for step in range(max(map(len, histories), default=0))
        )


def relative_residual(residual: Tensor, rhs: Tensor) -> Tensor:
    """Norm of each row of ``residual [n_rhs, size]`` over that of ``rhs``; 0 where that is 0."""
    norm = rhs.norm(dim=1)
    relative: Tensor = residual.norm(dim=1) / norm.where(norm > 0, 1.0)
    return relative


def histories(left: Sequence[Tensor], iterations: Tensor) -> tuple[tuple[float, ...], ...]:
    """The history of each right-hand side.

    Args:
        left: Relative residuals ``[n_rhs]`` at the start and after each step of the solver.
        iterations: ``[n_rhs]``, how many of the steps, from the first on, were each one's own.
    """
    rows = torch.stack(list(left), dim=1).tolist()
    return tuple(
        tuple(row[: count + 1]) for row, count in zip(rows, iterations.tolist(), strict=True)
    )


def _or_nan(value: float) -> tuple[bool, float]:
    """Sorts what is not a number last, so that it counts as the worst."""
    return math.isnan(value), value
