"""From the ``influence.inner`` section to an inverse: first its state, which a cache may keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vmap

from metaaudit.bilevel.batch import TaskBatch
from metaaudit.bilevel.implicit import Implicit
from metaaudit.bilevel.inner import (
    CGInverse,
    DenseInverse,
    EKFACInverse,
    GaussNewtonInverse,
    InnerInverse,
    InnerProblem,
    InnerReport,
    State,
)
from metaaudit.bilevel.progress import Advance
from metaaudit.config.influence import InfluenceConfig
from metaaudit.curvature import Bases, Network, fisher_terms
from metaaudit.curvature.network import Terms
from metaaudit.models import Params


@dataclass(frozen=True)
class InnerMethod:
    """How the inner Hessian is inverted.

    Attributes:
        config: The ``influence`` section.
        network: The layers; ``None`` where nothing is by EK-FAC.
    """

    config: InfluenceConfig
    network: Network | None = None

    def state(self, problem: InnerProblem, advance: Advance = lambda _: None) -> State:
        """Adapts to every task and computes what the inverse needs of each.

        Returns:
            ``theta [n_tasks, n_params]`` and ``stationarity [n_tasks]``, as in ``Implicit``, and
            the arrays of the inverse.
        """
        shared: State = {}
        if self.config.inner.inverse == "ekfac" and self.config.inner.basis == "shared":
            shared = EKFACInverse.shared_state(problem, self._network, self._terms(problem))
        found: dict[str, list[Tensor]] = {}
        rows: list[int] = []
        for batch in problem.batching.batches(problem.task_set):
            theta = problem.adapted(batch)
            own = {
                "theta": problem.layout.flatten(theta),
                "stationarity": _stationarity(problem, batch, theta),
                **self._own(problem, batch, theta, shared),
            }
            for name, values in own.items():
                found.setdefault(name, []).append(values)
            rows += batch.rows.tolist()
            advance(len(batch.rows))
        order = torch.tensor(rows).argsort()
        return {name: torch.cat(parts)[order] for name, parts in found.items()} | shared

    def implicit(self, problem: InnerProblem, state: State | None = None) -> Implicit:
        """The adaptation by implicit differentiation.

        Args:
            problem: The inner problems.
            state: What ``state`` gave; computed where it is not given.
        """
        state = self.state(problem) if state is None else state
        inverse = self.inverse(problem, state)
        parts = (problem.objective, problem.params, problem.task_set, problem.batching)
        return Implicit(*parts, state["theta"], inverse, problem.rho, state["stationarity"])

    def inverse(self, problem: InnerProblem, state: State) -> InnerInverse:
        """The inverse from its state."""
        kind = self.config.inner.inverse
        if kind == "ekfac":
            return EKFACInverse.of(self._network, state, problem.rho)
        if kind == "ggn":
            return GaussNewtonInverse(problem.objective, problem.rho, state["cholesky"])
        if kind == "dense":
            return DenseInverse(state["inverse"], state["definite"])
        return CGInverse(
            problem.objective,
            problem.rho,
            self.config.tolerance,
            self.config.max_iterations,
            InnerReport(),
        )

    def _own(self, problem: InnerProblem, batch: TaskBatch, theta: Params, shared: State) -> State:
        kind = self.config.inner.inverse
        if kind == "ekfac":
            bases = Bases.of_arrays(self._network, shared) if shared else None
            return EKFACInverse.state(self._network, self._terms(problem), batch, theta, bases)
        if kind == "ggn":
            return GaussNewtonInverse.state(problem, batch, theta)
        return DenseInverse.state(problem, batch, theta) if kind == "dense" else {}

    @property
    def _network(self) -> Network:
        assert self.network is not None
        return self.network

    def _terms(self, problem: InnerProblem) -> Terms:
        return fisher_terms(problem.objective.mean_loss, self.config.fisher)


def _stationarity(problem: InnerProblem, batch: TaskBatch, theta: Params) -> Tensor:
    """Gradient norm of the proximal problem at ``theta``, relative to that of its start."""
    slope = vmap(grad(problem.objective.support_loss))
    start = {name: p.expand_as(theta[name]) for name, p in problem.params.items()}
    pulled = {
        name: g + problem.rho * (theta[name] - start[name])
        for name, g in slope(theta, batch.data).items()
    }
    first = problem.layout.flatten(slope(start, batch.data)).double().norm(dim=-1)
    left = problem.layout.flatten(pulled).double().norm(dim=-1)
    relative: Tensor = left / first.where(first > 0, 1.0)
    return relative
