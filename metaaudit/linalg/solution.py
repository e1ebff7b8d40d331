"""What a solver returns: never a bare tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

MatVec = Callable[[Tensor], Tensor]
"""``[n_rhs, size] -> [n_rhs, size]``: a symmetric operator applied to each row."""


class Status(StrEnum):
    """How a solve ended; ``stagnated`` is at the precision of the products with the operator."""

    CONVERGED = "converged"
    MAX_ITERATIONS = "max-iterations"
    STAGNATED = "stagnated"
    NEGATIVE_CURVATURE = "negative-curvature"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Solution:
    """Solution of ``A x_r = b_r`` for several right-hand sides ``r``.

    Attributes:
        value: ``[n_rhs, size]``, float64.
        status: How each solve ended.
        residual: ``||b - A x|| / ||b||`` of each, 0 where ``b = 0``.
        iterations: Iterations of each; 0 for direct solvers.
        history: Largest relative residual after each iteration, the initial one included;
            empty for direct solvers.
        solver: Name of the solver that gave the value.
    """

    value: Tensor
    status: tuple[Status, ...]
    residual: tuple[float, ...]
    iterations: tuple[int, ...]
    history: tuple[float, ...]
    solver: str

    @property
    def converged(self) -> bool:
        """Whether every right-hand side converged."""
        return all(status is Status.CONVERGED for status in self.status)


def relative_residual(residual: Tensor, rhs: Tensor) -> Tensor:
    """Norm of each row of ``residual [n_rhs, size]`` over that of ``rhs``; 0 where that is 0."""
    norm = rhs.norm(dim=1)
    relative: Tensor = residual.norm(dim=1) / norm.where(norm > 0, 1.0)
    return relative
