"""Differentiating the learner's own steps: exact for the adaptation as it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from metaaudit.bilevel.adaptation import Adaptation, Linearised
from metaaudit.bilevel.batch import TaskBatch, TaskTensors
from metaaudit.bilevel.objective import Objective, over_tasks, unit_weights
from metaaudit.models import Params, pullback


@dataclass(frozen=True)
class Unrolled(Adaptation):
    """Every derivative by automatic differentiation through ``adapt``."""

    def adapted(self, batch: TaskBatch) -> Params:
        """See ``Adaptation.adapted``."""
        theta: Params = over_tasks(
            lambda p, w, v, data: self.objective.adapt(p, w, data), self.params, batch.data
        )
        return theta

    def linearise(self, batch: TaskBatch) -> Linearised:
        """See ``Adaptation.linearise``."""
        n_tasks = len(batch.rows)
        # One copy of the meta-parameters a task, so that their gradients stay apart.
        each = {name: p.expand(n_tasks, *p.shape) for name, p in self.params.items()}
        weights, _ = unit_weights(batch.data)
        theta, pull = pullback(lambda p: vmap(self.objective.adapt)(p, weights, batch.data), each)
        return Linearised(theta, pull)

    def push(self, batch: TaskBatch, tangent: Params) -> Params:
        """See ``Adaptation.push``."""
        pushed: Params = jvp(
            lambda params: replace(self, params=params).adapted(batch), (self.params,), (tangent,)
        )[1]
        return pushed

    def hessian_product(self, batch: TaskBatch, tangent: Params) -> Params:
        """Forward over reverse; see ``Adaptation.hessian_product``."""

        def batch_loss(params: Params) -> Tensor:
            total: Tensor = over_tasks(self.objective.task_loss, params, batch.data).sum()
            return total

        product: Params = jvp(grad(batch_loss), (self.params,), (tangent,))[1]
        return product

    def weight_derivatives(self, batch: TaskBatch, tangent: Params) -> Tensor:
        """One forward pass over the reverse pass that gives ``d L_k / d(w, v)``.

        The other order takes a fifth less time, but is silently wrong for learners that solve
        linear systems: torch's forward derivative of ``linalg.solve`` rests on a factorisation
        through which a reverse pass over it does not see (torch 2.13).
        """

        def along(params: Params, w: Tensor, v: Tensor, data: TaskTensors) -> Tensor:
            return along_weights(self.objective, params, tangent, (w, v), data)

        derivatives: Tensor = over_tasks(along, self.params, batch.data)
        return derivatives


def along_weights(
    objective: Objective,
    params: Params,
    tangent: Params,
    weights: tuple[Tensor, Tensor],
    data: TaskTensors,
) -> Tensor:
    """``d/d omega [p . D L_k]`` for the weight of every instance of one task: ``[n + m]``.

    Args:
        objective: The bilevel objective.
        params: Meta-parameters.
        tangent: ``p``.
        weights: ``w [n]`` and ``v [m]``, where it is differentiated.
        data: The task.
    """

    def by_weight(params: Params) -> Tensor:
        return torch.cat(grad(objective.task_loss, argnums=(1, 2))(params, *weights, data))

    derivative: Tensor = jvp(by_weight, (params,), (tangent,))[1]
    return derivative
