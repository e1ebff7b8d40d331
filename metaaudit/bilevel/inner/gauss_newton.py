"""The inner Gauss-Newton matrix, inverted exactly: in few-shot learning its rank is tiny.

``V = [n classes, n_params]`` holds the Jacobian of the support outputs, weighted by the square root
of the loss's Hessian on them, so that the Gauss-Newton matrix is ``V^T V``; then (Woodbury)::

    (V^T V + rho I)^-1 v = (v - V^T (V V^T + rho I)^-1 V v) / rho

``V`` itself is never kept: its products are one forward and one backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.func import hessian, jvp, vmap
from torch.nn import functional

from metaaudit.bilevel.batch import TaskBatch, TaskTensors
from metaaudit.bilevel.inner.base import InnerInverse, InnerProblem, State, at, task_of
from metaaudit.bilevel.objective import Objective
from metaaudit.models import Layout, Params, pullback

BLOCK = 16
"""Rows of ``V`` at once, where it is formed: each is a backward pass over a whole support set."""


@dataclass(frozen=True)
class GaussNewtonInverse(InnerInverse):
    """Woodbury's identity with ``V`` as two passes.

    Attributes:
        objective: The bilevel objective.
        rho: The shift.
        cholesky: ``[n_tasks, rows, rows]``, float64: of ``V V^T + rho I`` of each task, in the
            first rows where the tasks have different sizes.
    """

    objective: Objective
    rho: float
    cholesky: Tensor

    @staticmethod
    def state(problem: InnerProblem, batch: TaskBatch, theta: Params) -> State:
        """``cholesky`` of a batch, padded to the largest task of the set by the identity."""
        objective = problem.objective
        layout = problem.layout

        def gram(theta: Params, data: TaskTensors) -> Tensor:
            outputs, pull = pullback(lambda theta: objective.forward(theta, data.support_x), theta)
            factor = _weight(objective, outputs, data)
            rows = torch.eye(factor[..., 0].numel()).to(outputs)
            weighted = _times(factor, rows.reshape(-1, *outputs.shape))
            jacobian = vmap(lambda row: layout.flatten(pull(row)), chunk_size=BLOCK)(weighted)
            return jacobian.double() @ jacobian.double().T

        # One task at a time: V of a task is larger than all else here.
        grams = torch.stack([gram(*task_of(theta, batch.data, k)) for k in range(len(batch.rows))])
        grams.diagonal(dim1=-2, dim2=-1).add_(problem.rho)
        classes = grams.shape[-1] // batch.data.support_y.shape[1]
        most = classes * max(len(task.support) for task in problem.task_set.tasks)
        padded = torch.eye(most).to(grams).repeat(len(grams), 1, 1)
        padded[:, : grams.shape[-1], : grams.shape[-1]] = torch.linalg.cholesky(grams)
        return {"cholesky": padded}

    def over(self, rows: list[int]) -> Self:
        """See ``InnerInverse.over``."""
        return replace(self, cholesky=self.cholesky[rows])

    def apply(self, batch: TaskBatch, theta: Params, vectors: Tensor) -> Tensor:
        """See ``InnerInverse.apply``."""
        layout = Layout({name: p.shape[1:] for name, p in theta.items()})

        def one(theta: Params, vector: Params, cholesky: Tensor, data: TaskTensors) -> Params:
            def forward(theta: Params) -> Tensor:
                return self.objective.forward(theta, data.support_x)

            outputs, pull = pullback(forward, theta)
            factor = _weight(self.objective, outputs, data)
            seen = _times(factor, jvp(forward, (theta,), (vector,))[1])
            rows = seen.numel()
            solved = torch.cholesky_solve(
                seen.double().reshape(-1, 1), cholesky[:rows, :rows]
            ).reshape(outputs.shape)
            back: Params = pull(_times(factor, solved.to(outputs)))
            return {name: (vector[name] - back[name]) / self.rho for name in theta}

        tangents = layout.unflatten(vectors, theta)
        return layout.flatten(vmap(one)(theta, tangents, at(self.cholesky, batch.rows), batch.data))


def _weight(objective: Objective, outputs: Tensor, data: TaskTensors) -> Tensor:
    """``S [n, classes, classes]``, symmetric, ``S^2`` the mean loss's Hessian on each output.

    The symmetric root is unique: another one could differ between two computations.
    """

    def loss(one: Tensor, label: Tensor) -> Tensor:
        return objective.loss(one[None], label[None]).squeeze(0)

    curvature = vmap(hessian(loss))(outputs.double(), data.support_y) / len(outputs)
    values, vectors = torch.linalg.eigh(curvature)
    root: Tensor = (vectors * functional.relu(values).sqrt()[:, None, :]) @ vectors.mT
    return root.to(outputs)


def _times(factor: Tensor, values: Tensor) -> Tensor:
    """``S`` times ``values [*, n, classes]``, instance by instance."""
    return (factor @ values[..., None]).squeeze(-1)
