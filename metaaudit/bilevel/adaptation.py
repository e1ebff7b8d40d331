"""How the adapted parameters of a set's tasks depend on the meta-parameters and the weights.

All derivatives of the objective through the adaptation come from an object with this interface:
``Unrolled``, which differentiates the steps of the learner, ``Implicit``, which differentiates the
optimality condition that they work towards, or a ``Field``, for learners that do not descend along
the gradient of the objective.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from metaaudit.bilevel.batch import Batching, TaskBatch
from metaaudit.bilevel.objective import Objective
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Layout, Params


@dataclass(frozen=True)
class Linearised:
    """The adaptation to a batch of tasks, and the transpose of its derivative.

    Attributes:
        theta: Adapted parameters, with a leading dimension of tasks.
        pull: ``J_k^T c_k`` of every task, ``J_k = d theta_k / d lambda``, for cotangents ``c`` with
            a leading dimension of tasks.
    """

    theta: Params
    pull: Callable[[Params], Params]


@dataclass(frozen=True)
class Adaptation(ABC):
    """The adaptation to every task of a set, and its derivatives.

    Attributes:
        objective: The bilevel objective.
        params: Meta-parameters ``lambda``.
        task_set: The tasks.
        batching: How many are computed at once, and where.
    """

    objective: Objective
    params: Params
    task_set: TaskSet
    batching: Batching

    @property
    def layout(self) -> Layout:
        """The order of the meta-parameters in a flat vector."""
        return Layout.of(self.params)

    def unit_tangent(self, direction: Tensor) -> tuple[Params, float]:
        """A direction ``[n_params]`` at norm 1, and its norm; one of norm 0 stays as it is.

        Tangents of order 1 keep single precision away from its limits.
        """
        scale = float(direction.norm()) or 1.0
        return self.layout.unflatten(direction / scale, self.params), scale

    def batches(self) -> Iterator[TaskBatch]:
        """All tasks, in batches."""
        return self.batching.batches(self.task_set)

    def over(self, rows: list[int]) -> Self:
        """The same over some of the tasks."""
        return replace(self, task_set=self.task_set.select(rows))

    @abstractmethod
    def adapted(self, batch: TaskBatch) -> Params:
        """``theta_k`` of every task, with a leading dimension of tasks."""

    @abstractmethod
    def linearise(self, batch: TaskBatch) -> Linearised:
        """Adapts to a batch and differentiates it."""

    def descent(self, batch: TaskBatch) -> Linearised:
        """Like ``linearise``; ``pull`` takes ``d L_k / d theta_k`` to what training descends along.

        That is ``D L_k``, unless the learner follows a field that is no gradient.
        """
        return self.linearise(batch)

    @abstractmethod
    def push(self, batch: TaskBatch, tangent: Params) -> Params:
        """``J_k p`` of every task, for one tangent ``p`` of the meta-parameters."""

    @abstractmethod
    def hessian_product(self, batch: TaskBatch, tangent: Params) -> Params:
        """``D^2 L_k p``, summed over the batch."""

    def transposed_jacobian_product(self, batch: TaskBatch, tangent: Params) -> Params:
        """``(d/d lambda)^T p`` of what the learner descends along, summed over the batch."""
        return self.hessian_product(batch, tangent)

    @abstractmethod
    def weight_derivatives(self, batch: TaskBatch, tangent: Params) -> Tensor:
        """``d/d omega [p . D L_k]`` for the weight of every instance: ``[batch, n + m]``."""
