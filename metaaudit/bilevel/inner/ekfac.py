"""The inner Hessian by EK-FAC at the adapted parameters, on the support set.

``task`` has Kronecker factors of its own for every task. ``shared`` has one eigenbasis for all,
that of the pooled support sets at the meta-parameters, and only the corrected eigenvalues task by
task: as many numbers a task as the network has parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from metaaudit.bilevel.batch import TaskBatch
from metaaudit.bilevel.inner.base import InnerInverse, InnerProblem, State
from metaaudit.curvature import Bases, Covariances, Factors, Network, corrected, record_tasks
from metaaudit.curvature.network import Terms
from metaaudit.models import Params


@dataclass(frozen=True)
class EKFACInverse(InnerInverse):
    """One or many eigenbases, and eigenvalues of every task.

    Attributes:
        factors: With a leading dimension of tasks; bases without one are those of all tasks.
        rho: Added to every eigenvalue.
    """

    factors: Factors
    rho: float

    @staticmethod
    def shared_state(problem: InnerProblem, network: Network, terms: Terms) -> State:
        """The eigenbasis of the pooled support sets at the meta-parameters, without tasks."""

        def covariances() -> Iterator[Covariances]:
            for batch in problem.batching.batches(problem.task_set):
                each = {
                    name: p.expand(len(batch.rows), *p.shape) for name, p in problem.params.items()
                }
                support = (batch.data.support_x, batch.data.support_y)
                yield Covariances.of(record_tasks(network, each, *support, terms)).over_tasks()

        sums = Covariances.total(covariances())
        like = next(iter(problem.params.values()))
        return Bases.of(network, sums, like).arrays()

    @staticmethod
    def state(
        network: Network, terms: Terms, batch: TaskBatch, theta: Params, shared: Bases | None
    ) -> State:
        """Eigenvalues of a batch of tasks, and their eigenbases unless they share one."""
        record = record_tasks(network, theta, batch.data.support_x, batch.data.support_y, terms)
        sums = Covariances.of(record)
        bases = shared or Bases.of(network, sums, next(iter(theta.values())))
        values = corrected(bases.squares(record), sums.count)
        like = next(iter(theta.values()))
        found = {f"{path}:eigenvalues": value.to(like) for path, value in values.items()}
        return found if shared else {**found, **bases.arrays()}

    @classmethod
    def of(cls, network: Network, state: State, rho: float) -> Self:
        """From what ``state`` and ``shared_state`` gave."""
        values = {path: state[f"{path}:eigenvalues"] for path in network.layers}
        return cls(Factors(network, Bases.of_arrays(network, state), values), rho)

    def over(self, rows: list[int]) -> Self:
        """See ``InnerInverse.over``."""
        return replace(self, factors=self._picked(rows))

    def apply(self, batch: TaskBatch, theta: Params, vectors: Tensor) -> Tensor:
        """See ``InnerInverse.apply``."""
        factors = self._picked(batch.rows.tolist())
        weights = {path: 1 / (values + self.rho) for path, values in factors.eigenvalues.items()}
        return factors.apply(weights, vectors)

    def _picked(self, rows: list[int]) -> Factors:
        bases, values = self.factors.bases, self.factors.eigenvalues

        def pick(parts: dict[str, Tensor]) -> dict[str, Tensor]:
            return {
                path: part[rows] if part.ndim == values[path].ndim else part
                for path, part in parts.items()
            }

        return replace(
            self.factors,
            bases=Bases(pick(bases.entering), pick(bases.leaving)),
            eigenvalues=pick(values),
        )
