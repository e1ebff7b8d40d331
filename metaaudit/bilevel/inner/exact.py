"""The exact inner Hessian: by conjugate gradients, or as a dense inverse on small networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from metaaudit.bilevel.batch import TaskBatch, TaskTensors
from metaaudit.bilevel.inner.base import InnerInverse, InnerProblem, InnerReport, State, at, task_of
from metaaudit.bilevel.objective import Objective
from metaaudit.errors import ConfigError
from metaaudit.linalg import MatVec, cg
from metaaudit.models import Layout, Params

DENSE_LIMIT = 1 << 28
"""Numbers that dense inverses may have, over all tasks: 2 GiB."""
COLUMNS = 16
"""Columns of a dense Hessian at once; more are slower on a CPU."""


def inner_hessian(objective: Objective, batch: TaskBatch, theta: Params, rho: float) -> MatVec:
    """The operator ``H_in``, row ``k`` by the Hessian of task ``k`` of the batch."""
    layout = Layout({name: p.shape[1:] for name, p in theta.items()})

    def product(vectors: Tensor) -> Tensor:
        # Tangents of norm 1 keep single precision away from its limits.
        scale = vectors.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        tangents = layout.unflatten(vectors / scale, theta)

        def one(theta: Params, tangent: Params, data: TaskTensors) -> Params:
            gradient = grad(lambda theta: objective.support_loss(theta, data))
            found: Params = jvp(gradient, (theta,), (tangent,))[1]
            return found

        products = layout.flatten(vmap(one)(theta, tangents, batch.data))
        result: Tensor = products.to(vectors) * scale + rho * vectors
        return result

    return product


@dataclass(frozen=True)
class CGInverse(InnerInverse):
    """Solves anew for every vector, all tasks of a batch in lockstep.

    Attributes:
        objective: The bilevel objective.
        rho: The shift.
        tolerance: Relative residual.
        max_iterations: Bound on the iterations.
        report: How the solves went.
    """

    objective: Objective
    rho: float
    tolerance: float
    max_iterations: int
    report: InnerReport

    def over(self, rows: list[int]) -> Self:
        """See ``InnerInverse.over``."""
        return self

    def apply(self, batch: TaskBatch, theta: Params, vectors: Tensor) -> Tensor:
        """See ``InnerInverse.apply``."""
        solution = cg(
            inner_hessian(self.objective, batch, theta, self.rho),
            vectors,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
        self.report.add(solution)
        return solution.value


@dataclass(frozen=True)
class DenseInverse(InnerInverse):
    """Inverses that are held.

    Attributes:
        inverse: ``[n_tasks, n_params, n_params]``, float64.
        definite: ``[n_tasks]``, whether each Hessian is positive definite.
    """

    inverse: Tensor
    definite: Tensor

    @staticmethod
    def state(problem: InnerProblem, batch: TaskBatch, theta: Params) -> State:
        """``inverse`` and ``definite`` of a batch.

        Raises:
            ConfigError: The network or the set is too large.
        """
        size, n_tasks = problem.layout.size, len(problem.task_set)
        if n_tasks * size * size > DENSE_LIMIT:
            raise ConfigError(
                "influence.inner.inverse",
                f"dense would hold {n_tasks} matrices of {size} x {size}",
                f"at most {DENSE_LIMIT:.0e} numbers",
                "use ggn, cg or ekfac",
            )
        # One task at a time, many columns at once: its own point is then shared by all of them.
        matrix = torch.stack(
            [
                _dense_hessian(problem, *task_of(theta, batch.data, k))
                for k in range(len(batch.rows))
            ]
        )
        matrix.diagonal(dim1=-2, dim2=-1).add_(problem.rho)
        definite = torch.linalg.cholesky_ex(matrix).info == 0
        return {"inverse": torch.linalg.inv(matrix), "definite": definite}

    def over(self, rows: list[int]) -> Self:
        """See ``InnerInverse.over``."""
        return replace(self, inverse=self.inverse[rows], definite=self.definite[rows])

    def apply(self, batch: TaskBatch, theta: Params, vectors: Tensor) -> Tensor:
        """See ``InnerInverse.apply``."""
        inverse = at(self.inverse, batch.rows)
        return (inverse @ vectors.to(inverse)[..., None]).squeeze(-1)


def _dense_hessian(problem: InnerProblem, theta: Params, data: TaskTensors) -> Tensor:
    """The Hessian of one task's inner loss, ``[n_params, n_params]``, float64."""
    layout = problem.layout
    gradient = grad(lambda theta: problem.objective.support_loss(theta, data))

    def column(unit: Tensor) -> Tensor:
        found: Params = jvp(gradient, (theta,), (layout.unflatten(unit, theta),))[1]
        return layout.flatten(found)

    units = torch.eye(layout.size, device=problem.batching.device)
    matrix = vmap(column, chunk_size=COLUMNS)(units).double()
    return (matrix + matrix.mT) / 2
