"""Out-of-fold class probabilities: what the rest of a task says about each of its labels.

A task's support and query are pooled and cut into folds. For each fold the learner adapts to the
others (the fold's instances have weight 0) and then classifies the fold, so that no instance helps
to memorise its own label.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import vmap

from metaaudit.bilevel import Advance, Batching, Objective, TaskTensors
from metaaudit.config.mislabel import MislabelConfig
from metaaudit.inputs.task_set import Ints, Task, TaskSet
from metaaudit.models import Params

Probabilities = npt.NDArray[np.float64]


def cross_fit(
    objective: Objective,
    params: Params,
    task_set: TaskSet,
    batching: Batching,
    config: MislabelConfig,
    advance: Advance = lambda _: None,
) -> Probabilities:
    """Out-of-fold log-probabilities of every instance, averaged over repeats as probabilities.

    With batch normalisation, the fold's inputs are in the batch statistics, as query inputs are in
    MAML; their labels are used nowhere.

    Args:
        objective: The bilevel objective; its learner adapts.
        params: Meta-parameters.
        task_set: The tasks.
        batching: How many are computed at once, and where.
        config: Folds, repeats and seed.
        advance: Told of progress.

    Returns:
        ``[n_instances, n_outputs]`` log-probabilities, in the task set's order of instances.
    """
    # Every fold is an adaptation of its own, so a task counts as many; larger chunks run slower.
    batching = replace(batching, size=max(1, batching.size // config.folds))
    repeats = []
    for repeat in range(config.repeats):
        logits: list[tuple[Ints, npt.NDArray[np.float64]]] = []
        for batch in batching.batches(task_set):
            folds = [
                assign_folds(task_set.tasks[row], config.folds, (config.seed, repeat))
                for row in batch.rows
            ]
            values = _out_of_fold(objective, params, batch.data, torch.from_numpy(np.stack(folds)))
            logits.append((batch.instances, values.double().cpu().numpy()))
            advance(len(batch.rows))
        result = np.empty((task_set.n_instances, logits[0][1].shape[-1]))
        for instances, part in logits:
            result[instances] = part
        repeats.append(result)
    with np.errstate(invalid="ignore"):  # a fit that diverged is the caller's to judge
        log_p = [one - np.logaddexp.reduce(one, axis=1, keepdims=True) for one in repeats]
        mean: Probabilities = np.logaddexp.reduce(log_p, axis=0) - np.log(len(log_p))
    return mean


def assign_folds(task: Task, folds: int, seed: tuple[int, int]) -> Ints:
    """The fold ``[n + m]`` of each instance, stratified by given label.

    An image that occurs more than once is in one fold, lest it vouch for its own label. Folds
    depend on the task's id and labels and on the seed, not on the other tasks or their order.
    """
    rows = np.concatenate([task.support, task.query])
    _, first, image = np.unique(rows, return_index=True, return_inverse=True)
    labels = np.concatenate([task.support_y, task.query_y])[first]
    name = int.from_bytes(hashlib.sha256(task.task_id.encode()).digest()[:8], "big")
    rng = np.random.default_rng([*seed, name])
    # Dealing the instances out class by class gives each fold its share of every class.
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == y)) for y in np.unique(labels)]
    )
    assigned = np.empty(len(labels), dtype=np.int64)
    assigned[order] = np.arange(len(labels)) % min(folds, len(labels))
    return assigned[image]


def _out_of_fold(objective: Objective, params: Params, data: TaskTensors, folds: Tensor) -> Tensor:
    """Logits ``[batch, n + m, outputs]`` of every instance by the fit that left it out."""
    inputs = torch.cat([data.support_x, data.query_x], dim=1)
    labels = torch.cat([data.support_y, data.query_y], dim=1)
    n_folds = int(folds.max()) + 1
    held_out = folds[:, None, :] == torch.arange(n_folds)[None, :, None]
    held_out = held_out.to(inputs.device)
    kept = (~held_out).to(inputs.dtype)
    # The inner loss divides by all instances, so the kept ones are weighted up to a mean over them.
    weights = kept * kept.shape[-1] / kept.sum(-1, keepdim=True)

    def fit(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return objective.forward(objective.adapt(params, w, TaskTensors(x, y, x, y)), x)

    logits = vmap(vmap(fit, in_dims=(None, None, 0)))(inputs, labels, weights)
    # Chosen, not multiplied by 0 and 1: a fit that diverged must not reach the other folds.
    return logits.where(held_out[..., None], 0.0).sum(dim=1)
