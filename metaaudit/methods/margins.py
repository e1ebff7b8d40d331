"""The output that TRAK explains: ``f = log(p / (1 - p))`` of the probability of the given label."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from metaaudit.bilevel import Adaptation, Advance, Objective, TaskTensors
from metaaudit.methods.base import Floats
from metaaudit.models import Params


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """``f [n]`` of ``outputs [n, ways]``: the label's output less the others' log-sum-exp."""
    own = torch.arange(outputs.shape[-1], device=outputs.device) == labels[:, None]
    others = outputs.masked_fill(own, -torch.inf).logsumexp(-1)
    return (outputs * own).sum(-1) - others


def query_margins(objective: Objective, theta: Params, data: TaskTensors) -> Tensor:
    """``f [m]`` of the queries of a task."""
    return margins(objective.forward(theta, data.query_x), data.query_y)


def margin_gradients(adaptation: Adaptation, advance: Advance = lambda _: None) -> np.ndarray:
    """``[n_tasks, n_params]``: the total gradient of every task's mean query margin.

    It goes through the adaptation of every learner, whatever training descends along.
    """
    objective, found = adaptation.objective, []
    for batch in adaptation.batches():

        def mean(theta: Params, data: TaskTensors) -> Tensor:
            return query_margins(objective, theta, data).mean()

        linearised = adaptation.linearise(batch)
        partial = vmap(grad(mean))(linearised.theta, batch.data)
        flat = adaptation.layout.flatten(linearised.pull(partial)).cpu().numpy()
        found.append((batch.rows, flat))
        advance(len(batch.rows))
    result = np.empty((len(adaptation.task_set), adaptation.layout.size), found[0][1].dtype)
    for rows, flat in found:
        result[rows] = flat
    return result


def margin_shares(
    adaptation: Adaptation, direction: Tensor, advance: Advance = lambda _: None
) -> Floats:
    """``(1/m) u . D f_j`` of every query instance, and 0 of every support instance.

    Args:
        adaptation: The tasks and their adaptation.
        direction: ``u [n_params]``.
        advance: Told of progress.

    Returns:
        ``[n_instances]``, in the task set's order of instances.
    """
    objective = adaptation.objective
    tangent, scale = adaptation.unit_tangent(direction)

    def slopes(theta: Params, moved: Params, data: TaskTensors) -> Tensor:
        found: Tensor = jvp(lambda t: query_margins(objective, t, data), (theta,), (moved,))[1]
        return found / len(found)

    result = np.zeros(adaptation.task_set.n_instances)
    for batch in adaptation.batches():
        pushed = adaptation.push(batch, tangent)
        each = vmap(slopes)(adaptation.adapted(batch), pushed, batch.data)
        result[batch.instances[:, -each.shape[1] :]] = scale * each.double().cpu().numpy()
        advance(len(batch.rows))
    return result
