"""Solvers for symmetric linear systems; they know nothing of learning."""

from metaaudit.linalg.cg import cg
from metaaudit.linalg.dense import materialise, solve_dense, solve_low_rank
from metaaudit.linalg.neumann import largest_eigenvalue, neumann
from metaaudit.linalg.solution import MatVec, Solution, Status, relative_residual

__all__ = [
    "MatVec",
    "Solution",
    "Status",
    "cg",
    "largest_eigenvalue",
    "materialise",
    "neumann",
    "relative_residual",
    "solve_dense",
    "solve_low_rank",
]
