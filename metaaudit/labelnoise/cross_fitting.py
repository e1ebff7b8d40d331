"""Out-of-fold class probabilities: what the rest of a task says about each of its labels.

A task's support and query are pooled and cut into folds. For each fold the learner adapts to the
others (the fold's instances have weight 0) and then classifies the fold, so that no instance helps
to memorise its own label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from metaaudit.bilevel import Advance, Batching, Objective
from metaaudit.config.mislabel import MislabelConfig
from metaaudit.inputs.task_set import SETS, Ints, SetName, Task, TaskSet
from metaaudit.labelnoise.fits import held_out_fit, out_of_fold
from metaaudit.labelnoise.judgement import Probabilities, judge
from metaaudit.models import Params

SUPPORT_FOLDS = 5
FEW_TASKS = 40
FACTORS = (0.5, 1, 2, 4)
"""Multiples of the learner's own number of inner steps that are tried."""


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
    most = min(config.folds, max(sum(task.shape) for task in task_set.tasks))
    batching = replace(batching, size=max(1, batching.size // most))
    each: list[tuple[Ints, Probabilities]] = []
    for batch in batching.batches(task_set):
        inputs = torch.cat([batch.data.support_x, batch.data.query_x], dim=1)
        labels = torch.cat([batch.data.support_y, batch.data.query_y], dim=1)
        tasks = [task_set.tasks[row] for row in batch.rows]
        logits = []
        for repeat in range(config.repeats):
            folds = [assign_folds(task, config.folds, (config.seed, repeat)) for task in tasks]
            assigned = torch.from_numpy(np.stack(folds))
            values = out_of_fold(objective, params, inputs, labels, assigned)
            logits.append(values.flatten(0, 1).double().cpu().numpy())
        each.append((batch.instances.ravel(), mean_probabilities(logits)))
        advance(len(tasks))
    result = np.empty((task_set.n_instances, each[0][1].shape[-1]))
    for instances, part in each:
        result[instances] = part
    return result


def best_steps(
    with_steps: Callable[[int], Objective],
    steps: int,
    params: Params,
    task_set: TaskSet,
    batching: Batching,
    config: MislabelConfig,
) -> int:
    """The number of inner steps with the best out-of-fold accuracy on the first few tasks.

    Few steps leave a learner unadapted, many fit wrong labels too; wrong labels lower the accuracy
    of every number alike, so that it chooses between them nonetheless. The fewer win a tie.

    Args:
        with_steps: The objective with a number of steps.
        steps: The learner's own.
        params: Meta-parameters.
        task_set: The tasks.
        batching: How many are computed at once, and where.
        config: Folds and seed.
    """
    some = task_set.select(list(range(min(FEW_TASKS, len(task_set)))))
    labels = np.concatenate([task.pooled_labels for task in some.tasks])

    def accuracy(count: int) -> float:
        found = cross_fit(with_steps(count), params, some, batching, config)
        return float((judge(found, some).suggested == labels).mean())

    counts = sorted({1, *(max(1, round(steps * factor)) for factor in FACTORS)})
    return max(counts, key=lambda count: (accuracy(count), -count))


def mean_probabilities(logits: list[Probabilities]) -> Probabilities:
    """Log of the mean of the probabilities that several sets of logits stand for.

    Args:
        logits: ``[n_instances, n_outputs]`` each.
    """
    with np.errstate(invalid="ignore"):  # a fit that diverged is the caller's to judge
        log_p = [one - np.logaddexp.reduce(one, axis=1, keepdims=True) for one in logits]
        mean: Probabilities = np.logaddexp.reduce(log_p, axis=0) - np.log(len(log_p))
    return mean


def support_fit(
    objective: Objective,
    params: Params,
    task_set: TaskSet,
    batching: Batching,
    config: MislabelConfig,
    advance: Advance = lambda _: None,
) -> Probabilities:
    """Log-probabilities of every instance by learners that adapted to the support alone.

    The support is cut into ``SUPPORT_FOLDS`` folds, each left out before it is classified: as good
    as leaving out each instance by itself, at a fraction of the time.

    Args:
        objective: The bilevel objective; its learner adapts.
        params: Meta-parameters.
        task_set: The tasks.
        batching: How many are computed at once, and where.
        config: Seed.
        advance: Told of progress.

    Returns:
        ``[n_instances, n_outputs]`` log-probabilities, in the task set's order of instances.
    """

    def folds_of(task: Task) -> Ints:
        return assign_folds(task, SUPPORT_FOLDS, (config.seed, 0), ("support",))

    return held_out_fit(objective, params, task_set, batching, folds_of, advance)


def leave_one_out_fit(
    objective: Objective,
    params: Params,
    task_set: TaskSet,
    batching: Batching,
    advance: Advance = lambda _: None,
) -> Probabilities:
    """The same with each support instance left out by itself, exactly.

    Args:
        objective: The bilevel objective; its learner adapts.
        params: Meta-parameters.
        task_set: The tasks.
        batching: How many are computed at once, and where.
        advance: Told of progress.

    Returns:
        ``[n_instances, n_outputs]`` log-probabilities, in the task set's order of instances.
    """

    def folds_of(task: Task) -> Ints:
        return np.arange(len(task.support), dtype=np.int64)

    return held_out_fit(objective, params, task_set, batching, folds_of, advance)


def assign_folds(
    task: Task, folds: int, seed: tuple[int, int], sets: tuple[SetName, ...] = SETS
) -> Ints:
    """The fold ``[n + m]`` of each instance, stratified by given label.

    An image that occurs more than once is in one fold, lest it vouch for its own label. Folds
    depend on the task's id and labels and on the seed, not on the other tasks or their order.

    Args:
        task: The task.
        folds: How many, where there are as many images.
        seed: Of the order in which the instances are dealt out.
        sets: Which instances: all, or ``[n]`` those of the support alone.
    """
    rows = np.concatenate([task.rows(name) for name in sets])
    _, first, image = np.unique(rows, return_index=True, return_inverse=True)
    labels = np.concatenate([task.labels(name) for name in sets])[first]
    name = int.from_bytes(hashlib.sha256(task.task_id.encode()).digest()[:8], "big")
    rng = np.random.default_rng([*seed, name])
    # Dealing the instances out class by class gives each fold its share of every class.
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == y)) for y in np.unique(labels)]
    )
    assigned = np.empty(len(labels), dtype=np.int64)
    assigned[order] = np.arange(len(labels)) % min(folds, len(labels))
    return assigned[image]
