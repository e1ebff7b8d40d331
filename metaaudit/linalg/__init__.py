"""Solvers for linear systems; they know nothing of learning."""

from metaaudit.linalg.cg import cg
from metaaudit.linalg.dense import (
    LowRankSolver,
    materialise,
    solve_dense,
    solve_general,
    solve_low_rank,
)
from metaaudit.linalg.gmres import gmres
from metaaudit.linalg.lanczos import Spectrum, lanczos, suggested_damping
from metaaudit.linalg.neumann import neumann
from metaaudit.linalg.sketch import Sketch, sketch
from metaaudit.linalg.solution import MatVec, Solution, Status, relative_residual

__all__ = [
    "LowRankSolver",
    "MatVec",
    "Sketch",
    "Solution",
    "Spectrum",
    "Status",
    "cg",
    "gmres",
    "lanczos",
    "materialise",
    "neumann",
    "relative_residual",
    "sketch",
    "solve_dense",
    "solve_general",
    "solve_low_rank",
    "suggested_damping",
]
