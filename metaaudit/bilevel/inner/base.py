"""What every inverse of the inner Hessian offers, and what one is built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.func import vmap

from metaaudit.bilevel.batch import Batching, TaskBatch, TaskTensors
from metaaudit.bilevel.objective import Objective, unit_weights
from metaaudit.inputs.task_set import Ints, TaskSet
from metaaudit.linalg import Solution, Status
from metaaudit.models import Layout, Params

State = dict[str, Tensor]
"""What is computed once of every task, each with a leading dimension of tasks."""


@dataclass(frozen=True)
class InnerProblem:
    """The proximal inner problem of every task of a set.

    Attributes:
        objective: The bilevel objective.
        params: Meta-parameters.
        task_set: The tasks.
        batching: How many are computed at once, and where.
        rho: Strength of the pull to the meta-parameters; ``H_in`` is shifted by exactly this.
    """

    objective: Objective
    params: Params
    task_set: TaskSet
    batching: Batching
    rho: float

    @property
    def layout(self) -> Layout:
        """The order of the parameters in a flat vector."""
        return Layout.of(self.params)

    def adapted(self, batch: TaskBatch) -> Params:
        """Adapted parameters, with a leading dimension of tasks."""
        weights, _ = unit_weights(batch.data)
        theta: Params = vmap(self.objective.adapt, in_dims=(None, 0, 0))(
            self.params, weights, batch.data
        )
        return theta


class InnerInverse(ABC):
    """``H_in^-1`` of every task of a set."""

    @abstractmethod
    def over(self, rows: list[int]) -> Self:
        """The same over some of the tasks."""

    @abstractmethod
    def apply(self, batch: TaskBatch, theta: Params, vectors: Tensor) -> Tensor:
        """``H_in^-1 v`` of every task.

        Args:
            batch: Tasks.
            theta: Their adapted parameters, with a leading dimension of tasks.
            vectors: ``[batch, n_params]``, one a task.
        """


@dataclass
class InnerReport:
    """How the inner solves went.

    Attributes:
        solves: Number of solves; 0 where the inverse is direct.
        not_converged: Those that did not converge.
        negative_curvature: Those that met negative curvature.
        iterations: Most iterations of one.
        residual: Largest relative residual.
    """

    solves: int = 0
    not_converged: int = 0
    negative_curvature: int = 0
    iterations: int = 0
    residual: float = 0.0

    def add(self, solution: Solution) -> None:
        """Counts the solves of a batch."""
        self.solves += len(solution.status)
        self.not_converged += sum(status is not Status.CONVERGED for status in solution.status)
        self.negative_curvature += sum(
            status is Status.NEGATIVE_CURVATURE for status in solution.status
        )
        self.iterations = max(self.iterations, *solution.iterations)
        self.residual = max(self.residual, *solution.residual)


def at(tensor: Tensor, rows: Ints) -> Tensor:
    """The rows of a batch's tasks."""
    return tensor[torch.from_numpy(rows).to(tensor.device)]


def task_of(theta: Params, data: TaskTensors, k: int) -> tuple[Params, TaskTensors]:
    """The adapted parameters and the data of one task of a batch."""
    return {name: p[k] for name, p in theta.items()}, TaskTensors(*(part[k] for part in data))
