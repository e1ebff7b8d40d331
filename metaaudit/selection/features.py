"""What a meta-network looks at: features of every instance, and of every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metaaudit.bilevel import Advance, Batching, Objective, TaskBatch, TaskTensors, over_tasks
from metaaudit.config.mts import FeatureGroup
from metaaudit.inputs.task_set import Ints, TaskSet
from metaaudit.learners import Forward
from metaaudit.models import Params
from metaaudit.selection.dynamics import dynamics
from metaaudit.selection.positions import beside_held_out, positions

Floats = np.ndarray


@dataclass(frozen=True)
class Seen:
    """What a learner made of the instances of a task, support before query.

    Attributes:
        labels: ``[n]``.
        log_probabilities: ``[steps, n, n_outputs]``, along the inner steps.
        embedding: ``[n, width]``, what the last layer sees after adaptation.
        before: ``[n, width]``, likewise before adaptation.
    """

    labels: Ints
    log_probabilities: Floats
    embedding: Floats
    before: Floats

    @classmethod
    def joined(cls, tasks: Sequence[Seen]) -> Seen:
        """Of several tasks as one."""
        return cls(
            np.concatenate([one.labels for one in tasks]),
            np.concatenate([one.log_probabilities for one in tasks], axis=1),
            np.concatenate([one.embedding for one in tasks]),
            np.concatenate([one.before for one in tasks]),
        )


@dataclass(frozen=True)
class Observer:
    """Looks at the instances of tasks while a learner adapts to them.

    Attributes:
        steps: The objective with every number of inner steps from none to the learner's own; with
            that alone where it takes no steps.
        embed: The network before its last layer.
        params: Meta-parameters.
        batching: How many tasks are computed at once, and where.
    """

    steps: Sequence[Objective]
    embed: Forward
    params: Params
    batching: Batching

    def seen(self, task_set: TaskSet, advance: Advance = lambda _: None) -> list[Seen]:
        """What there is to see of every task.

        Args:
            task_set: The tasks.
            advance: Told of progress.
        """
        found: dict[int, Seen] = {}
        for batch in self.batching.batches(task_set):
            log_p = torch.stack([self._log_p(objective, batch) for objective in self.steps], dim=1)
            each = (log_p, *(self._embedded(self.steps[at], batch) for at in (-1, 0)))
            for row, *values in zip(batch.rows, *map(_array, each), strict=True):
                found[row] = Seen(task_set.tasks[row].pooled_labels, *values)
            advance(len(batch.rows))
        return [found[row] for row in range(len(task_set))]

    def before(self, task_set: TaskSet) -> Floats:
        """``[n_instances, width]``: embeddings before adaptation, in no particular order.

        Args:
            task_set: The tasks.
        """
        batches = self.batching.batches(task_set)
        parts = [_array(self._embedded(self.steps[0], batch).flatten(0, 1)) for batch in batches]
        return np.concatenate(parts)

    def _log_p(self, objective: Objective, batch: TaskBatch) -> Tensor:
        return _pooled(objective.forward, objective, self.params, batch).log_softmax(-1)

    def _embedded(self, objective: Objective, batch: TaskBatch) -> Tensor:
        return _pooled(self.embed, objective, self.params, batch).flatten(2)


def features_of(
    trajectory: Sequence[Seen], groups: Sequence[FeatureGroup], held_out: Floats | None = None
) -> Floats:
    """``[n, width]``: the features of the instances of a task.

    Args:
        trajectory: What each of some checkpoints made of the task, in the order of training: what
            is no dynamics is of the last.
        groups: Which features are taken.
        held_out: ``[m, width]``, embeddings of held-out instances before adaptation; only
            ``held-out`` needs it.
    """
    last = trajectory[-1]
    log_p = np.concatenate([one.log_probabilities for one in trajectory])

    def group(name: FeatureGroup) -> Floats:
        if name == "positions":
            return positions(last.embedding, last.labels)
        if name == "dynamics":
            return dynamics(log_p, last.labels, last.embedding)
        if name == "held-out":
            assert held_out is not None
            return beside_held_out(last.before, held_out)
        return last.embedding if name == "embedding" else np.eye(log_p.shape[2])[last.labels]

    return np.concatenate([group(name) for name in groups], axis=1)


def task_features(of_instances: Floats, task_set: TaskSet) -> Floats:
    """``[n_tasks, 2 width]``: mean and standard deviation over the instances of each task.

    Args:
        of_instances: ``[n_instances, width]``.
        task_set: The tasks.
    """
    ends = np.cumsum([sum(task.shape) for task in task_set.tasks])
    parts = np.split(of_instances, ends[:-1])
    return np.stack([np.concatenate([p.mean(axis=0), p.std(axis=0)]) for p in parts])


def standardised(features: Floats) -> Floats:
    """Each column with mean 0 and standard deviation 1; one that does not vary is 0."""
    centred = features - features.mean(axis=0)
    spread = features.std(axis=0)
    constant = spread <= 1e-12 * np.abs(features).max(axis=0)
    scaled: Floats = np.where(constant, 0.0, centred / np.where(constant, 1.0, spread))
    return scaled


def _pooled(forward: Forward, objective: Objective, params: Params, batch: TaskBatch) -> Tensor:
    """``forward`` of support and query ``[batch, n + m, ...]`` after adaptation to the support."""

    def both(params: Params, w: Tensor, _: Tensor, data: TaskTensors) -> Tensor:
        theta = objective.adapt(params, w, data)
        return torch.cat([forward(theta, x) for x, _ in data.sets])

    found: Tensor = over_tasks(both, params, batch.data)
    return found


def _array(values: Tensor) -> Floats:
    array: Floats = values.double().cpu().numpy()
    return array
