"""The adjoint: ``u = H^-1 D M`` for every evaluation target, and how well it was solved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from metaaudit.bilevel.total_hessian import TotalHessian
from metaaudit.config.schema import InfluenceConfig
from metaaudit.curvature import task_fisher_factor
from metaaudit.errors import ConfigError, IncompleteError
from metaaudit.linalg import Solution, Status, cg, neumann, solve_dense, solve_low_rank

AUTO_DAMPING = 0.1
RAISE, MOST_RAISED = 4.0, 1e6
ADVICE = {
    Status.MAX_ITERATIONS: "raise influence.damping or influence.max_iterations",
    Status.NEGATIVE_CURVATURE: "raise influence.damping",
    Status.STAGNATED: "raise influence.damping, or use compute.dtype: float64",
    Status.DIVERGED: "raise influence.damping",
}
DENSE_LIMIT = 5000


@dataclass(frozen=True)
class Adjoint:
    """Solutions for all targets.

    Attributes:
        direction: ``[n_targets, n_params]``, float64: ``u`` of every target.
        solution: The solve; ``None`` for the method ``dot``, which solves nothing.
        damping: What was added to the Hessian beside the outer L2 weight.
        warnings: One line for each thing that did not go as asked.
    """

    direction: Tensor
    solution: Solution | None
    damping: float
    warnings: tuple[str, ...] = ()

    @property
    def mean_direction(self) -> Tensor:
        """``[n_params]``: ``u`` of the mean of the targets, since the solve is linear."""
        return self.direction.mean(dim=0)


def solve_adjoint(
    config: InfluenceConfig,
    hessian: TotalHessian,
    gradients: Tensor,
    targets: Tensor,
    weight_decay: float,
) -> Adjoint:
    """Solves for every evaluation target.

    Args:
        config: The ``influence`` section.
        hessian: The exact total Hessian without shift.
        gradients: ``[n_tasks, n_params]`` total gradients of the training tasks.
        targets: ``[n_targets, n_params]``, ``D M`` of each target.
        weight_decay: Outer L2 weight ``delta``.

    Raises:
        ConfigError: The shifted curvature is singular, or a dense solve is too large.
        IncompleteError: A target or the solution is not finite.
    """
    if config.method == "dot":
        return Adjoint(targets.double(), None, 0.0)
    factor = task_fisher_factor(gradients, hessian.task_set.query_sizes)
    first = auto_damping(factor) if config.damping == "auto" else config.damping
    solve = partial(_attempts, config, hessian, factor, targets, weight_decay)
    damping, attempts = first, solve(first)
    while (
        config.damping == "auto"
        and Status.NEGATIVE_CURVATURE in attempts[-1].status
        and damping < MOST_RAISED * first
    ):
        damping *= RAISE
        attempts = solve(damping)
    solution, warnings = attempts[-1], [_fell_back(attempt) for attempt in attempts[:-1]]
    if damping > first:
        warnings.append(
            f"the exact Hessian has negative eigenvalues: damping was raised from {first:.2g} to "
            f"{damping:.2g}"
        )
    if not bool(solution.value.isfinite().all()):
        raise IncompleteError(
            "influence",
            "the solve gave non-finite numbers",
            "finite gradients and curvature",
            "raise influence.damping or use compute.dtype: float64",
        )
    if not solution.converged:
        warnings.append(_not_converged(solution))
    return Adjoint(solution.value, solution, damping, tuple(warnings))


def auto_damping(factor: Tensor) -> float:
    """A tenth of the mean eigenvalue of ``V^T V`` in the span of the rows of ``V``."""
    rank = min(factor.shape)
    return AUTO_DAMPING * float((factor * factor).sum()) / rank


def _attempts(
    config: InfluenceConfig,
    hessian: TotalHessian,
    factor: Tensor,
    targets: Tensor,
    weight_decay: float,
    damping: float,
) -> list[Solution]:
    """All attempts at one damping; the last one counts."""
    shift = weight_decay + damping
    try:
        if config.curvature == "exact":
            return _solve_exact(config, hessian.shifted(shift), targets)
        if shift > 0:
            return [solve_low_rank(factor, shift, targets)]
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        pass
    raise ConfigError(
        "influence.damping",
        f"{damping:.1e} with training.weight_decay {weight_decay:.1e} leaves a singular Hessian",
        "a curvature that can be inverted",
        "give a larger number",
    )


def _solve_exact(config: InfluenceConfig, hessian: TotalHessian, targets: Tensor) -> list[Solution]:
    if config.solver == "dense":
        if targets.shape[1] > DENSE_LIMIT:
            raise ConfigError(
                "influence.solver",
                f"dense would need a {targets.shape[1]} x {targets.shape[1]} matrix",
                f"at most {DENSE_LIMIT} parameters",
                "use cg",
            )
        return [solve_dense(hessian, targets)]
    by_cg = partial(
        cg, hessian, targets, tolerance=config.tolerance, max_iterations=config.max_iterations
    )
    if config.solver != "neumann":
        return [by_cg()]
    series = neumann(
        hessian, targets, tolerance=config.tolerance, max_iterations=config.max_iterations
    )
    return [series, by_cg()] if Status.DIVERGED in series.status else [series]


def _fell_back(series: Solution) -> str:
    return (
        f"Neumann diverged (relative residual {max(series.residual):.1e} after "
        f"{max(series.iterations)} terms: an eigenvalue is negative); solved by CG instead"
    )


def _not_converged(solution: Solution) -> str:
    left = sorted({status for status in solution.status if status is not Status.CONVERGED})
    count = sum(status is not Status.CONVERGED for status in solution.status)
    return (
        f"{solution.solver} did not converge for {count} of {len(solution.status)} targets "
        f"({', '.join(left)}; worst relative residual {max(solution.residual):.1e}): "
        f"{'; '.join(dict.fromkeys(ADVICE[status] for status in left))}"
    )
