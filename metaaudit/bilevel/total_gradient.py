"""Total gradients: ``D L_k``, through the adaptation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import grad

from metaaudit.bilevel.batch import Batching, TaskTensors
from metaaudit.bilevel.objective import Objective, over_tasks
from metaaudit.bilevel.parameters import Layout
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params

Advance = Callable[[int], None]
"""Told how many more tasks are done."""


@dataclass(frozen=True)
class TaskGradients:
    """What one pass over a task set leaves.

    Attributes:
        gradients: ``[n_tasks, n_params]``, ``D L_k`` of every task.
        outer_loss: ``[n_tasks]``, ``L_k``.
        losses: ``[n_instances]``, the loss of every instance after adaptation to its task.
        correct: ``[n_instances]``, whether it is then classified as labelled.
    """

    gradients: npt.NDArray[np.floating]
    outer_loss: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]


def total_gradients(
    objective: Objective,
    params: Params,
    task_set: TaskSet,
    batching: Batching,
    advance: Advance = lambda _: None,
) -> TaskGradients:
    """Computes ``D L_k`` of every task, and the losses on the way.

    Args:
        objective: The bilevel objective.
        params: Meta-parameters.
        task_set: The tasks.
        batching: How many are computed at once, and where.
        advance: Told of progress.
    """
    layout = Layout.of(params)
    n_tasks, n_instances = len(task_set), task_set.n_instances
    gradients = np.empty((n_tasks, layout.size), torch.empty(0, dtype=batching.dtype).numpy().dtype)
    outer_loss, losses = np.empty(n_tasks), np.empty(n_instances)
    correct = np.empty(n_instances, dtype=np.bool_)

    def task_loss(
        params: Params, w: Tensor, v: Tensor, data: TaskTensors
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        adapted = objective.adapt(params, w, data)
        query = objective.forward(adapted, data.query_x)
        support = objective.forward(adapted, data.support_x)
        query_losses = objective.loss(query, data.query_y)
        evidence = torch.cat([objective.loss(support, data.support_y), query_losses])
        hits = torch.cat([_hits(support, data.support_y), _hits(query, data.query_y)])
        return (v * query_losses).mean(), (evidence, hits)

    for batch in batching.batches(task_set):
        gradient, (evidence, hits) = over_tasks(grad(task_loss, has_aux=True), params, batch.data)
        gradients[batch.rows] = layout.flatten(gradient).cpu().numpy()
        losses[batch.instances] = evidence.double().cpu().numpy()
        correct[batch.instances] = hits.cpu().numpy()
        m = batch.data.query_y.shape[1]
        outer_loss[batch.rows] = losses[batch.instances[:, -m:]].mean(axis=1)
        advance(len(batch.rows))
    return TaskGradients(gradients, outer_loss, losses, correct)


def _hits(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs.argmax(-1) == labels
