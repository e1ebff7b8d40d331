"""Direct solves: with the whole matrix, and with one that is a product of a factor."""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.linalg.solution import MatVec, Solution, Status, relative_residual

# A direct solve that leaves more than this was too ill-conditioned for float64.
DIRECT_TOLERANCE = 1e-6


def materialise(matvec: MatVec, size: int, *, like: Tensor, block: int = 64) -> Tensor:
    """The transposed matrix ``[size, size]`` of an operator, float64, from unit vectors."""
    eye = torch.eye(size, dtype=torch.float64, device=like.device)
    columns = [matvec(eye[start : start + block]).double() for start in range(0, size, block)]
    return torch.cat(columns)


def solve_dense(matvec: MatVec, rhs: Tensor) -> Solution:
    """Solves ``A x = b`` with the materialised matrix, symmetrised; for small problems and tests.

    A matrix that is not positive definite is reported as negative curvature.

    Args:
        matvec: Applies ``A`` to the rows of ``[n_rhs, size]``.
        rhs: ``[n_rhs, size]``.
    """
    rhs = rhs.double()
    matrix = materialise(matvec, rhs.shape[1], like=rhs)
    matrix = (matrix + matrix.T) / 2
    eigenvalues, basis = torch.linalg.eigh(matrix)
    value = ((rhs @ basis) / eigenvalues) @ basis.T
    definite = bool(eigenvalues[0] > 0)
    return _direct(value, rhs - value @ matrix, rhs, solver="dense", definite=definite)


def solve_general(matvec: MatVec, rhs: Tensor) -> Solution:
    """Solves ``A x = b`` with the materialised matrix, which need not be symmetric.

    Args:
        matvec: Applies ``A`` to the rows of ``[n_rhs, size]``.
        rhs: ``[n_rhs, size]``.

    Raises:
        LinAlgError: The matrix is singular.
    """
    rhs = rhs.double()
    transposed = materialise(matvec, rhs.shape[1], like=rhs)
    value = torch.linalg.solve(transposed, rhs, left=False)
    return _direct(value, rhs - value @ transposed, rhs, solver="dense", definite=True)


class LowRankSolver:
    """``(V^T V + shift I)^-1``, factored once through the smaller of two matrices.

    With fewer rows than columns that is ``V V^T``, by ``x = (b - V^T (V V^T + shift I)^-1 V b) /
    shift`` (Woodbury), else ``V^T V``.
    """

    def __init__(self, factor: Tensor, shift: float) -> None:
        """Factors the matrix.

        Args:
            factor: ``V [n, size]``.
            shift: Positive.

        Raises:
            LinAlgError: The shift is too small for the matrix to be positive definite in float64.
        """
        self.factor = factor.double()
        self.shift = shift
        self._wide = self.factor.shape[0] <= self.factor.shape[1]
        smaller = self.factor if self._wide else self.factor.T
        products = smaller @ smaller.T
        products.diagonal().add_(shift)
        self._cholesky = torch.linalg.cholesky(products)

    def apply(self, rows: Tensor) -> Tensor:
        """The inverse times each row of ``[n_rhs, size]``: a preconditioner."""
        rows = rows.double()
        if not self._wide:
            return torch.cholesky_solve(rows.T, self._cholesky).T
        inner = torch.cholesky_solve(self.factor @ rows.T, self._cholesky)
        return (rows - (self.factor.T @ inner).T) / self.shift

    def solve(self, rhs: Tensor) -> Solution:
        """The same for right-hand sides ``[n_rhs, size]``, with how well it was solved."""
        rhs = rhs.double()
        value = self.apply(rhs)
        residual = rhs - (value @ self.factor.T) @ self.factor - self.shift * value
        return _direct(value, residual, rhs, solver="dual", definite=True)


def solve_low_rank(factor: Tensor, shift: float, rhs: Tensor) -> Solution:
    """Solves ``(V^T V + shift I) x = b`` once, see `LowRankSolver`.

    Args:
        factor: ``V [n, size]``.
        shift: Positive.
        rhs: ``[n_rhs, size]``.

    Raises:
        LinAlgError: The shift is too small for the matrix to be positive definite in float64.
    """
    return LowRankSolver(factor, shift).solve(rhs)


def _direct(
    value: Tensor, residual: Tensor, rhs: Tensor, *, solver: str, definite: bool
) -> Solution:
    left = relative_residual(residual, rhs)
    solved = Status.CONVERGED if definite else Status.NEGATIVE_CURVATURE
    status = tuple(solved if one <= DIRECT_TOLERANCE else Status.STAGNATED for one in left)
    return Solution(
        value=value,
        status=status,
        residual=tuple(left.tolist()),
        iterations=(0,) * len(rhs),
        history=((),) * len(rhs),
        solver=solver,
    )
