"""Learners that descend along a field which is no gradient of the objective.

First-order MAML and Reptile move the meta-parameters along ``g_k(lambda; w, v)``, and rest where
``G = (1/N) sum_k a_k g_k + delta lambda`` vanishes. With ``J`` the Jacobian of ``G``, a weight
``omega`` of the data moves that point by ``- J^-1 dG / d omega``, and so its influence is::

    I = - u . dG / d omega,    u = J^-T D M

where ``D M`` is the true total gradient of the evaluation loss. ``J`` is not symmetric.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vmap

from metaaudit.bilevel.adaptation import Linearised
from metaaudit.bilevel.batch import TaskBatch, TaskTensors
from metaaudit.bilevel.objective import over_tasks, unit_weights
from metaaudit.bilevel.unrolled import Unrolled
from metaaudit.models import Params, pullback


@dataclass(frozen=True)
class Field(Unrolled):
    """Training tasks of a learner that follows a field."""

    @abstractmethod
    def field(self, params: Params, w: Tensor, v: Tensor, data: TaskTensors) -> Params:
        """``g_k(lambda; w, v)`` of one task, shaped as the meta-parameters."""

    def transposed_jacobian_product(self, batch: TaskBatch, tangent: Params) -> Params:
        """See ``Adaptation.transposed_jacobian_product``."""

        def summed(params: Params) -> Params:
            fields: Params = over_tasks(self.field, params, batch.data)
            return {name: g.sum(0) for name, g in fields.items()}

        product: Params = pullback(summed, self.params)[1](tangent)
        return product

    def weight_derivatives(self, batch: TaskBatch, tangent: Params) -> Tensor:
        """See ``Adaptation.weight_derivatives``; the field's, along ``tangent``."""

        def one(w: Tensor, v: Tensor, data: TaskTensors) -> Tensor:
            def along(w: Tensor, v: Tensor) -> Tensor:
                found = self.field(self.params, w, v, data)
                return torch.stack([(found[name] * tangent[name]).sum() for name in found]).sum()

            return torch.cat(grad(along, argnums=(0, 1))(w, v))

        derivatives: Tensor = vmap(one)(*unit_weights(batch.data), batch.data)
        return derivatives


@dataclass(frozen=True)
class FirstOrder(Field):
    """First-order MAML: the gradient of the query loss in ``theta_k`` (Finn et al., 2017)."""

    def field(self, params: Params, w: Tensor, v: Tensor, data: TaskTensors) -> Params:
        """See ``Field.field``."""

        def outer(theta: Params) -> Tensor:
            return (v * self.objective.losses(theta, data.query_x, data.query_y)).mean()

        slope: Params = grad(outer)(self.objective.adapt(params, w, data))
        return slope

    def descent(self, batch: TaskBatch) -> Linearised:
        """See ``Adaptation.descent``; nothing is differentiated through the adaptation."""
        return Linearised(self.adapted(batch), lambda partial: partial)


@dataclass(frozen=True)
class Reptile(Field):
    """Reptile: ``(lambda - theta_k) / (alpha K)`` (Nichol et al., 2018).

    ``theta_k`` is adapted to support and query together, since Reptile does not divide a training
    task.

    Attributes:
        length: ``alpha K``, inner learning rate times steps, which makes the field an average of
            the inner gradients.
    """

    length: float

    def field(self, params: Params, w: Tensor, v: Tensor, data: TaskTensors) -> Params:
        """See ``Field.field``."""
        theta = self._pooled(params, w, v, data)
        return {name: (p - theta[name]) / self.length for name, p in params.items()}

    def descent(self, batch: TaskBatch) -> Linearised:
        """See ``Adaptation.descent``; the parameters are those adapted to the support alone.

        They cost an adaptation more, for losses that are of queries which were not adapted to.
        """
        towards: Params = over_tasks(self.field, self.params, batch.data)
        return Linearised(self.adapted(batch), lambda partial: towards)

    def _pooled(self, params: Params, w: Tensor, v: Tensor, data: TaskTensors) -> Params:
        x = torch.cat([data.support_x, data.query_x])
        y = torch.cat([data.support_y, data.query_y])
        return self.objective.adapt(params, torch.cat([w, v]), TaskTensors(x, y, x, y))
