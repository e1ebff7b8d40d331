"""The total Hessian ``H = D^2 F`` as an operator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import grad, jvp

from metaaudit.bilevel.batch import Batching, TaskTensors
from metaaudit.bilevel.objective import Objective, over_tasks
from metaaudit.bilevel.parameters import Layout
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params


@dataclass(frozen=True)
class TotalHessian:
    """``(1/N) sum_k D^2 L_k + shift I``, exact for unrolled adaptation.

    Attributes:
        objective: The bilevel objective.
        params: Meta-parameters at which it is taken.
        task_set: The training tasks.
        batching: How many tasks are computed at once, and where.
        shift: Outer L2 weight plus damping.
    """

    objective: Objective
    params: Params
    task_set: TaskSet
    batching: Batching
    shift: float = 0.0

    def shifted(self, shift: float) -> TotalHessian:
        """The same operator with another shift."""
        return replace(self, shift=shift)

    def over(self, rows: list[int]) -> TotalHessian:
        """The same operator over some of the tasks."""
        return replace(self, task_set=self.task_set.select(rows))

    def __call__(self, vectors: Tensor) -> Tensor:
        """Products ``[n_rhs, n_params]`` with the rows of ``vectors [n_rhs, n_params]``."""
        layout = Layout.of(self.params)
        # Tangents of norm 1 keep single precision away from its limits.
        scale = vectors.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        tangents = [layout.unflatten(row, self.params) for row in vectors / scale]
        total = torch.zeros_like(vectors, dtype=torch.float64)
        for batch in self.batching.batches(self.task_set):
            # One tangent at a time, so that memory does not grow with their number.
            for row, tangent in enumerate(tangents):
                total[row] += layout.flatten(self._product(tangent, batch.data)).double()
        products: Tensor = total * scale / len(self.task_set) + self.shift * vectors
        return products

    def _product(self, tangent: Params, data: TaskTensors) -> Params:
        """Sum over the batch of ``D^2 L_k`` times the tangent."""

        def batch_loss(params: Params) -> Tensor:
            total: Tensor = over_tasks(self.objective.task_loss, params, data).sum()
            return total

        product: Params = jvp(grad(batch_loss), (self.params,), (tangent,))[1]
        return product
