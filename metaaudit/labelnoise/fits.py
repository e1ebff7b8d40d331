"""What a learner says of instances that it adapted to, or that it was kept from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from metaaudit.bilevel import Advance, Batching, Objective, TaskBatch, TaskTensors, over_tasks
from metaaudit.inputs.task_set import Ints, Task, TaskSet
from metaaudit.labelnoise.judgement import Probabilities
from metaaudit.models import Params


def out_of_fold(
    objective: Objective, params: Params, inputs: Tensor, labels: Tensor, folds: Tensor
) -> Tensor:
    """Logits ``[batch, n, outputs]`` of every instance by the fit that left its fold out.

    Args:
        objective: The bilevel objective; its learner adapts.
        params: Meta-parameters.
        inputs: ``[batch, n, ...]``.
        labels: ``[batch, n]``.
        folds: ``[batch, n]``, from 0 to as many as the largest.
    """
    n_folds = int(folds.max()) + 1
    held_out = folds[:, None, :] == torch.arange(n_folds)[None, :, None]
    held_out = held_out.to(inputs.device)
    kept = (~held_out).to(inputs.dtype)
    # The inner loss divides by all instances, so the kept ones are weighted up to a mean over them.
    # Where nothing is kept, since all instances are one image, the learner stays unadapted.
    weights = kept * kept.shape[-1] / kept.sum(-1, keepdim=True).clamp(min=1)

    def fit(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return objective.forward(objective.adapt(params, w, TaskTensors(x, y, x, y)), x)

    logits = vmap(vmap(fit, in_dims=(None, None, 0)))(inputs, labels, weights)
    # Chosen, not multiplied by 0 and 1: a fit that diverged must not reach the other folds.
    return logits.where(held_out[..., None], 0.0).sum(dim=1)


def adapted_fit(
    objective: Objective,
    params: Params,
    task_set: TaskSet,
    batching: Batching,
    advance: Advance = lambda _: None,
) -> Probabilities:
    """Log-probabilities ``[n_instances, n_outputs]`` after adaptation to each task's support.

    The support is classified by a learner that has seen its labels.
    """

    def fit(params: Params, w: Tensor, _: Tensor, data: TaskTensors) -> Tensor:
        theta = objective.adapt(params, w, data)
        forward = objective.forward
        return torch.cat([forward(theta, x) for x, _ in data.sets])

    def classify(batch: TaskBatch) -> Tensor:
        logits: Tensor = over_tasks(fit, params, batch.data)
        return logits.log_softmax(-1)

    return _each_instance(classify, task_set, batching, advance)


def held_out_fit(
    objective: Objective,
    params: Params,
    task_set: TaskSet,
    batching: Batching,
    folds_of: Callable[[Task], Ints],
    advance: Advance = lambda _: None,
) -> Probabilities:
    """The same with folds of the support left out in turn before they are classified.

    Query instances are classified after adaptation to the whole support. Support and query are not
    pooled, so that a query set under another naming of the classes stands out.

    Args:
        objective: The bilevel objective; its learner adapts.
        params: Meta-parameters.
        task_set: The tasks.
        batching: How many are computed at once, and where.
        folds_of: The fold ``[n]`` of each support instance of a task, from 0.
        advance: Told of progress.

    Returns:
        ``[n_instances, n_outputs]`` log-probabilities, in the task set's order of instances.
    """
    most = max(int(folds_of(task).max()) for task in task_set.tasks) + 1

    def classify(batch: TaskBatch) -> Tensor:
        data = batch.data
        folds = np.stack([folds_of(task_set.tasks[row]) for row in batch.rows])
        held_out = torch.from_numpy(folds)
        support = out_of_fold(objective, params, data.support_x, data.support_y, held_out)

        def query(params: Params, w: Tensor, _: Tensor, data: TaskTensors) -> Tensor:
            return objective.forward(objective.adapt(params, w, data), data.query_x)

        logits = torch.cat([support, over_tasks(query, params, data)], dim=1)
        return logits.log_softmax(-1)

    # Every fold is an adaptation of its own, so a task counts as many.
    batching = replace(batching, size=max(1, batching.size // most))
    return _each_instance(classify, task_set, batching, advance)


def own_influence(
    objective: Objective,
    params: Params,
    task_set: TaskSet,
    batching: Batching,
    advance: Advance = lambda _: None,
) -> Probabilities:
    """Influence of each instance on the query loss of its own task, ``[n_instances, 1]``.

    That is the derivative of ``L_k`` in the weight of the instance, at fixed meta-parameters, times
    the size of its set, so that tasks of different size compare. For a query instance it is its
    loss; a support instance with a positive one hurts the queries of its task.
    """

    def classify(batch: TaskBatch) -> Tensor:
        slope = grad(objective.task_loss, argnums=(1, 2))
        sets = over_tasks(slope, params, batch.data)
        return torch.cat([part * part.shape[1] for part in sets], dim=1)[..., None]

    return _each_instance(classify, task_set, batching, advance)


def _each_instance(
    classify: Callable[[TaskBatch], Tensor],
    task_set: TaskSet,
    batching: Batching,
    advance: Advance,
) -> Probabilities:
    """``classify`` ``[batch, n + m, k]`` over all tasks, in the set's order of instances."""
    result = np.empty((0, 0))
    for batch in batching.batches(task_set):
        values = classify(batch).double().cpu().numpy()
        if not result.size:
            result = np.empty((task_set.n_instances, values.shape[-1]))
        result[batch.instances] = values
        advance(len(batch.rows))
    return result
