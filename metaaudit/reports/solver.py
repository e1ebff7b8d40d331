"""How the solver went, for the page's chart of its convergence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from metaaudit.runs.saved import SavedRun


@dataclass(frozen=True)
class SolveView:
    """How the solver went.

    Attributes:
        worst: Largest relative residual per iteration, the initial one first; empty for a solver
            that does not iterate.
        histories: Relative residuals of each target; empty in runs of earlier versions.
        given_up: Largest relative residuals of earlier solves, which another one replaced.
        median_iterations: Over the targets.
        most_iterations: Of a target.
        residual: The largest at the end; not finite where unknown.
    """

    worst: list[float]
    histories: list[list[float]]
    given_up: list[list[float]]
    median_iterations: float
    most_iterations: int
    residual: float


def solve_view(run: SavedRun) -> SolveView:
    """Reads it from the manifest."""
    solver = run.manifest["solver"]
    worst, targets = _numbers(solver["residual_history"]), solver.get("targets", [])
    iterations = [target["iterations"] for target in targets] or [max(len(worst) - 1, 0)]
    histories = (_numbers(target.get("residual_history", [])) for target in targets)
    residuals = _numbers(target["residual"] for target in targets)
    return SolveView(
        worst=worst,
        histories=[history for history in histories if history],
        given_up=[_numbers(one["residual_history"]) for one in solver.get("attempts", [])[:-1]],
        median_iterations=statistics.median(iterations),
        most_iterations=max(iterations),
        residual=float(np.max(residuals, initial=-math.inf)),
    )


def _numbers(values: Iterable[float | None]) -> list[float]:
    """Puts back the NaN that JSON lacks."""
    return [math.nan if value is None else value for value in values]
