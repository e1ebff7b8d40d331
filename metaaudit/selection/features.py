"""What a meta-network looks at: positions and dynamics of every instance, and of every task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from metaaudit.selection.positions import positions

Floats = np.ndarray

FEATURES: dict[FeatureGroup, Callable[[Floats, Ints], Floats]] = {
    "positions": positions,
    "dynamics": dynamics,
    "embedding": lambda embedding, _: embedding,
}


@dataclass(frozen=True)
class Observer:
    """Looks at the instances of a task while a learner adapts to it.

    Attributes:
        steps: The objective with every number of inner steps from none to the learner's own; with
            that alone where it takes no steps.
        embed: The network before its last layer, at adapted parameters.
        groups: Which features are taken.
    """

    steps: Sequence[Objective]
    embed: Forward
    groups: tuple[FeatureGroup, ...]

    def features(
        self,
        params: Params,
        task_set: TaskSet,
        batching: Batching,
        advance: Advance = lambda _: None,
    ) -> Floats:
        """``[n_instances, width]``, in the task set's order of instances.

        Args:
            params: Meta-parameters.
            task_set: The tasks.
            batching: How many are computed at once, and where.
            advance: Told of progress.
        """
        found: list[tuple[Ints, Floats]] = []
        for batch in batching.batches(task_set):
            values = self._values(params, batch)
            for place, row in enumerate(batch.rows):
                labels = task_set.tasks[row].pooled_labels
                parts = [FEATURES[group](values[group][place], labels) for group in self.groups]
                found.append((batch.instances[place], np.concatenate(parts, axis=1)))
            advance(len(batch.rows))
        result = np.empty((task_set.n_instances, found[0][1].shape[1]))
        for instances, part in found:
            result[instances] = part
        return result

    def _values(self, params: Params, batch: TaskBatch) -> dict[FeatureGroup, Floats]:
        """What the features of each task of a batch are computed from."""
        last = self.steps[-1]
        log_p = [_pooled(o.forward, o, params, batch).log_softmax(-1) for o in self.steps]
        embedded = _array(_pooled(self.embed, last, params, batch).flatten(2))
        return {
            "positions": embedded,
            "dynamics": _array(torch.stack(log_p, dim=1)),
            "embedding": embedded,
        }


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
        return torch.cat([forward(theta, data.support_x), forward(theta, data.query_x)])

    found: Tensor = over_tasks(both, params, batch.data)
    return found


def _array(values: Tensor) -> Floats:
    array: Floats = values.double().cpu().numpy()
    return array
