"""Total gradients: ``D L_k``, through the adaptation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import grad, vmap

from metaaudit.bilevel.adaptation import Adaptation
from metaaudit.bilevel.batch import TaskBatch, TaskTensors
from metaaudit.bilevel.progress import Advance
from metaaudit.models import Params


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


@dataclass(frozen=True)
class BatchGradients:
    """Gradients and what is seen on the way, of the tasks of a batch.

    Attributes:
        gradient: ``D L_k``, or what the learner descends along instead, with a leading dimension
            of tasks.
        losses: ``[batch, n + m]``, after adaptation.
        correct: ``[batch, n + m]``.
    """

    gradient: Params
    losses: Tensor
    correct: Tensor


def batch_gradients(adaptation: Adaptation, batch: TaskBatch) -> BatchGradients:
    """``D L_k`` of the tasks of a batch, or what the learner descends along instead."""
    objective = adaptation.objective

    def query_loss(theta: Params, data: TaskTensors) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs = [(objective.forward(theta, x), y) for x, y in data.sets]
        losses = [objective.loss(*one) for one in outputs]
        hits = torch.cat([_hits(*one) for one in outputs])
        return losses[-1].mean(), (torch.cat(losses), hits)

    linearised = adaptation.descent(batch)
    partial, seen = vmap(grad(query_loss, has_aux=True))(linearised.theta, batch.data)
    return BatchGradients(linearised.pull(partial), *seen)


def total_gradients(adaptation: Adaptation, advance: Advance = lambda _: None) -> TaskGradients:
    """Computes ``D L_k`` of every task, and the losses on the way.

    Args:
        adaptation: The tasks and their adaptation.
        advance: Told of progress.
    """
    task_set, layout = adaptation.task_set, adaptation.layout
    dtype = torch.empty(0, dtype=adaptation.batching.dtype).numpy().dtype
    gradients = np.empty((len(task_set), layout.size), dtype)
    outer_loss, losses = np.empty(len(task_set)), np.empty(task_set.n_instances)
    correct = np.empty(task_set.n_instances, dtype=np.bool_)
    for batch in adaptation.batches():
        found = batch_gradients(adaptation, batch)
        gradients[batch.rows] = layout.flatten(found.gradient).cpu().numpy()
        losses[batch.instances] = found.losses.double().cpu().numpy()
        correct[batch.instances] = found.correct.cpu().numpy()
        m = batch.data.query_y.shape[1]
        outer_loss[batch.rows] = losses[batch.instances[:, -m:]].mean(axis=1)
        advance(len(batch.rows))
    return TaskGradients(gradients, outer_loss, losses, correct)


def _hits(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs.argmax(-1) == labels
