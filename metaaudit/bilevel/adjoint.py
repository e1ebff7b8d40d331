"""The adjoint: ``u = H^-1 D M`` for every evaluation target, and how well it was solved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from metaaudit.bilevel.attempts import Attempt, warnings_of
from metaaudit.bilevel.total_hessian import TotalHessian
from metaaudit.config.influence import InfluenceConfig
from metaaudit.curvature import Factors, task_fisher_factor
from metaaudit.errors import ConfigError, IncompleteError
from metaaudit.linalg import (
    MatVec,
    Sketch,
    Solution,
    Spectrum,
    Status,
    cg,
    gmres,
    lanczos,
    neumann,
    relative_residual,
    sketch,
    solve_dense,
    solve_general,
    solve_low_rank,
    suggested_damping,
)

AUTO_DAMPING = 0.1
RAISE, MOST_RAISED = 4.0, 1e6
DENSE_LIMIT = 5000
MOST_ROWS, MOST_VALUES, LEAST_ROWS = 8192, 2**28, 512
"""A low-rank curvature is solved for with no more rows than this, or 2 GiB of them if that is less,
but with 512 at the least."""


@dataclass(frozen=True)
class Adjoint:
    """Solutions for all targets.

    Attributes:
        direction: ``[n_targets, n_params]``, float64: ``u`` of every target.
        attempts: The solves, the last of which counts; none for the method ``dot``.
        spectrum: Ritz values of the Hessian without shift, where they were looked for.
        sketch: What stood for a curvature of too many rows, where it had to.
        warnings: One line for each thing that did not go as asked.
    """

    direction: Tensor
    attempts: tuple[Attempt, ...]
    spectrum: Spectrum | None = None
    sketch: Sketch | None = None
    warnings: tuple[str, ...] = ()

    @property
    def solution(self) -> Solution | None:
        """The solve that counts; ``None`` for the method ``dot``, which solves nothing."""
        return self.attempts[-1].solution if self.attempts else None

    @property
    def damping(self) -> float:
        """What was added to the Hessian beside the outer L2 weight; a mean where it varies."""
        return self.attempts[-1].damping if self.attempts else 0.0

    @property
    def mean_direction(self) -> Tensor:
        """``[n_params]``: ``u`` of the mean of the targets, since the solve is linear."""
        return self.direction.mean(dim=0)


@dataclass(frozen=True)
class AdjointSolver:
    """Solves with the configured form of the total Hessian.

    Attributes:
        config: The ``influence`` section.
        hessian: The total Hessian without shift, in the configured form where that is an operator.
        gradients: ``[n_tasks, n_params]`` total gradients of the training tasks.
        weight_decay: Outer L2 weight ``delta``.
        ekfac: The total Hessian in the Kronecker eigenbasis, where it is used.
        factor: ``V [n_tasks * rows, n_params]``, the rows of a task together, with ``V^T V`` the
            total Hessian: for the curvature ``sampled-fisher``.
    """

    config: InfluenceConfig
    hessian: TotalHessian
    gradients: Tensor
    weight_decay: float
    ekfac: Factors | None = None
    factor: Tensor | None = None

    def solve(self, targets: Tensor) -> Adjoint:
        """Solves for every evaluation target.

        Args:
            targets: ``[n_targets, n_params]``, ``D M`` of each target.

        Raises:
            ConfigError: The shifted curvature is singular, or a dense solve is too large.
            IncompleteError: A target or the solution is not finite.
        """
        targets = targets.double()
        if self.config.method == "dot":
            return Adjoint(targets, ())
        spectrum, sketched = None, None
        if self.config.curvature == "ekfac":
            attempts = [self._by_ekfac(targets)]
        elif self.config.by_dual:
            sketched = sketch(self._low_rank, most_rows(targets.shape[1]), targets)
            attempts = [self._by_dual(sketched.rows, targets)]
        else:
            attempts, spectrum = self._by_operator(targets)
        solution = attempts[-1].solution
        if not bool(solution.value.isfinite().all()):
            raise IncompleteError(
                "influence",
                "the solve gave non-finite numbers",
                "finite gradients and curvature",
                "raise influence.damping or use compute.dtype: float64",
            )
        warnings = warnings_of(attempts, spectrum, self.weight_decay)
        if sketched and sketched.summed:
            warnings += (
                f"the {sketched.of} rows of the curvature were summed up, with random signs, to "
                f"{len(sketched.rows)}; its products with the targets are off by "
                f"{sketched.error:.1%} (root mean square)",
            )
        return Adjoint(solution.value, tuple(attempts), spectrum, sketched, warnings)

    def approximation(self, rows: list[int]) -> MatVec:
        """The configured curvature over some of the tasks, without shift."""
        if self.config.curvature == "ekfac":  # its eigenvalues are those of all tasks
            factors = self._factors
            return lambda vectors: factors.apply(factors.eigenvalues, vectors)
        if self.config.by_dual:
            factor = self._rows_of(rows)
            return lambda vectors: (vectors @ factor.T) @ factor
        return self.hessian.over(rows)

    @cached_property
    def _low_rank(self) -> Tensor:
        """``V`` whose ``V^T V`` is the curvature, or the task-Fisher where that is no such form."""
        if self.config.curvature == "sampled-fisher":
            assert self.factor is not None
            return self.factor.double()
        sizes = self.hessian.adaptation.task_set.query_sizes
        return task_fisher_factor(self.gradients, sizes)

    def _rows_of(self, tasks: list[int]) -> Tensor:
        """The same over some of the tasks."""
        n_tasks = len(self.gradients)
        by_task = self._low_rank.reshape(n_tasks, -1, self._low_rank.shape[1])
        rows: Tensor = by_task[tasks].flatten(0, 1) * (n_tasks / len(tasks)) ** 0.5
        return rows

    def _first_damping(self) -> float:
        asked = self.config.damping
        return auto_damping(self._low_rank, len(self.gradients)) if asked == "auto" else asked

    def _by_dual(self, factor: Tensor, targets: Tensor) -> Attempt:
        damping = self._first_damping()
        shift = self._shift(damping)
        if shift <= 0:
            raise self._singular(damping)
        try:
            return Attempt(solve_low_rank(factor, shift, targets), damping)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            raise self._singular(damping) from None

    def _by_ekfac(self, targets: Tensor) -> Attempt:
        factors, damping = self._factors, self.config.damping
        shifted = factors.damped("heuristic" if damping == "auto" else damping)
        count = sum(values.numel() for values in shifted.values())
        added = sum(
            float((values - factors.eigenvalues[path]).sum()) for path, values in shifted.items()
        )
        shifted = {path: values + self.weight_decay for path, values in shifted.items()}
        if min(float(values.min()) for values in shifted.values()) <= 0:
            raise self._singular(added / count)
        value = factors.apply({path: 1 / values for path, values in shifted.items()}, targets)
        left = relative_residual(targets - factors.apply(shifted, value), targets)
        n = len(targets)
        solution = Solution(
            value, (Status.CONVERGED,) * n, tuple(left.tolist()), (0,) * n, ((),) * n, "ekfac"
        )
        return Attempt(solution, added / count)

    def _by_operator(self, targets: Tensor) -> tuple[list[Attempt], Spectrum | None]:
        """Attempts until one meets no negative curvature, where the damping is ours to choose."""
        first = damping = self._first_damping()
        attempts, spectrum = self._attempts(targets, damping), None
        while Status.NEGATIVE_CURVATURE in attempts[-1].solution.status:
            spectrum = spectrum or lanczos(self.hessian, targets)
            if self.config.damping != "auto" or damping > MOST_RAISED * first:
                break
            more = suggested_damping(spectrum, self._shift(damping))
            raised = max(damping + more, RAISE * damping)
            if not raised > damping:  # no curvature at all, and none to go by
                break
            damping = raised
            attempts += self._attempts(targets, damping)
        return attempts, spectrum

    def _attempts(self, targets: Tensor, damping: float) -> list[Attempt]:
        """All attempts at one damping; the last one counts."""
        config, operator = self.config, self.hessian.shifted(self._shift(damping))
        if config.solver == "dense":
            try:
                return [Attempt(self._dense(operator, targets), damping)]
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                raise self._singular(damping) from None
        if config.curvature == "jacobian":
            return [Attempt(self._limited(gmres)(operator, targets), damping)]
        found = []
        if config.solver == "neumann":
            found.append(Attempt(self._limited(neumann)(operator, targets), damping))
            if Status.DIVERGED not in found[0].solution.status:
                return found
        by_cg = self._limited(cg)(operator, targets, preconditioner=self._preconditioner(damping))
        return [*found, Attempt(by_cg, damping)]

    def _limited(self, solver: Callable[..., Solution]) -> Callable[..., Solution]:
        config = self.config
        return partial(solver, tolerance=config.tolerance, max_iterations=config.max_iterations)

    def _preconditioner(self, damping: float) -> MatVec | None:
        if self.config.preconditioner == "none":
            return None
        factors, shift = self._factors, self._shift(damping)
        weights = {path: 1 / (values + shift) for path, values in factors.eigenvalues.items()}
        return lambda vectors: factors.apply(weights, vectors)

    def _dense(self, operator: TotalHessian, targets: Tensor) -> Solution:
        solve = solve_general if self.config.curvature == "jacobian" else solve_dense
        size = targets.shape[1]
        if size > DENSE_LIMIT:
            raise ConfigError(
                "influence.solver",
                f"dense would need a {size} x {size} matrix",
                f"at most {DENSE_LIMIT} parameters",
                "use influence.solver: auto",
            )
        return solve(operator, targets)

    @property
    def _factors(self) -> Factors:
        assert self.ekfac is not None
        return self.ekfac

    def _shift(self, damping: float) -> float:
        return self.weight_decay + damping

    def _singular(self, damping: float) -> ConfigError:
        return ConfigError(
            "influence.damping",
            f"{damping:.1e} with training.weight_decay {self.weight_decay:.1e} leaves a singular "
            "Hessian",
            "a curvature that can be inverted",
            "give a larger number",
        )


def most_rows(size: int) -> int:
    """With how many rows of so many parameters a low-rank curvature is solved for."""
    return max(LEAST_ROWS, min(MOST_ROWS, MOST_VALUES // size))


def auto_damping(factor: Tensor, n_tasks: int) -> float:
    """A tenth of the trace of ``V^T V`` for each dimension that the tasks' gradients span.

    Args:
        factor: ``V [rows, n_params]``.
        n_tasks: Number of tasks, however many rows each has.
    """
    return AUTO_DAMPING * float((factor * factor).sum()) / min(n_tasks, factor.shape[1])
