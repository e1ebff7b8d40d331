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
NOTHING_ODD: tuple[str, ...] = ()
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


@dataclass(frozen=True)
class CurvatureScale:
    """How the curvature compares with the exact total Hessian along one direction ``u``.

    Attributes:
        exact: ``u^T H u`` without damping, over the tasks looked at.
        approximate: The same with the task-Fisher.
        n_tasks: Number of tasks looked at.
    """

    exact: float
    approximate: float
    n_tasks: int


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
        ConfigError: The task-Fisher has no positive shift, or a dense solve is too large.
        IncompleteError: A target or the solution is not finite.
    """
    if config.method == "dot":
        return Adjoint(targets.double(), None, 0.0)
    factor = task_fisher_factor(gradients, query_sizes(hessian))
    damping = auto_damping(factor) if config.damping == "auto" else config.damping
    shift = weight_decay + damping
    if config.curvature == "task-fisher":
        if shift <= 0:
            raise ConfigError(
                "influence.damping",
                "is 0 and so is training.weight_decay, which leaves the task-fisher singular",
                "a positive sum",
                "use damping: auto",
            )
        solution, warnings = solve_low_rank(factor, shift, targets), NOTHING_ODD
    else:
        solution, warnings = _solve_exact(config, hessian.shifted(shift), targets)
    if not bool(solution.value.isfinite().all()):
        raise IncompleteError(
            "influence",
            "the solve gave non-finite numbers",
            "finite gradients and curvature",
            "raise influence.damping or use compute.dtype: float64",
        )
    if not solution.converged:
        warnings = (*warnings, _not_converged(solution, config))
    return Adjoint(solution.value, solution, damping, warnings)


def query_sizes(hessian: TotalHessian) -> Tensor:
    """Number of query instances of every training task, ``[n_tasks]``."""
    sizes = [len(task.query) for task in hessian.task_set.tasks]
    return torch.tensor(sizes, device=hessian.batching.device)


def auto_damping(factor: Tensor) -> float:
    """A tenth of the mean eigenvalue of ``V^T V`` in the span of the rows of ``V``."""
    return AUTO_DAMPING * float((factor * factor).sum()) / len(factor)


def curvature_scale(
    hessian: TotalHessian, gradients: Tensor, direction: Tensor, n_tasks: int = 16
) -> CurvatureScale:
    """Compares the task-Fisher with the exact Hessian along ``direction [n_params]``.

    Args:
        hessian: The exact total Hessian without shift.
        gradients: ``[n_tasks, n_params]`` total gradients.
        direction: ``u``.
        n_tasks: The comparison uses this many tasks, evenly spaced, since one exact product
            costs several passes over those it uses.
    """
    rows = torch.linspace(0, len(gradients) - 1, min(n_tasks, len(gradients))).long().tolist()
    unit = direction / (direction.norm() or 1.0)
    some = hessian.over(rows)
    factor = task_fisher_factor(gradients[rows], query_sizes(some))
    return CurvatureScale(
        exact=float(unit @ some(unit[None])[0]),
        approximate=float((factor @ unit).square().sum()),
        n_tasks=len(rows),
    )


def _solve_exact(
    config: InfluenceConfig, hessian: TotalHessian, targets: Tensor
) -> tuple[Solution, tuple[str, ...]]:
    if config.solver == "dense":
        if targets.shape[1] > DENSE_LIMIT:
            raise ConfigError(
                "influence.solver",
                f"dense would need a {targets.shape[1]} x {targets.shape[1]} matrix",
                f"at most {DENSE_LIMIT} parameters",
                "use cg",
            )
        return solve_dense(hessian, targets), NOTHING_ODD
    by_cg = partial(
        cg, hessian, targets, tolerance=config.tolerance, max_iterations=config.max_iterations
    )
    if config.solver != "neumann":
        return by_cg(), NOTHING_ODD
    solution = neumann(
        hessian, targets, tolerance=config.tolerance, max_iterations=config.max_iterations
    )
    if Status.DIVERGED not in solution.status:
        return solution, NOTHING_ODD
    warning = (
        f"Neumann diverged (relative residual {max(solution.residual):.1e} after "
        f"{max(solution.iterations)} terms: an eigenvalue is negative); solved by CG instead"
    )
    return by_cg(), (warning,)


def _not_converged(solution: Solution, config: InfluenceConfig) -> str:
    left = [status for status in solution.status if status is not Status.CONVERGED]
    return (
        f"{solution.solver} did not converge for {len(left)} of {len(solution.status)} targets "
        f"({', '.join(sorted(set(left)))}; worst relative residual {max(solution.residual):.1e}, "
        f"asked {config.tolerance:.0e}): raise influence.damping or influence.max_iterations"
    )
