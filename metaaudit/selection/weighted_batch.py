"""A batch of training tasks whose tasks, or whose instances, a meta-network weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from metaaudit.bilevel import Adaptation, TaskTensors, along_weights, batch_gradients
from metaaudit.inputs.task_set import Ints, TaskSet
from metaaudit.selection.meta_network import MetaNetwork


@dataclass(frozen=True)
class WeightedBatch(ABC):
    """A batch of tasks, weighted by the meta-network.

    Attributes:
        adaptation: To the tasks of the batch.
        network: The meta-network.
        features: ``[n_items, width]`` of what is weighted.
        step: Size of the step that is judged.
    """

    adaptation: Adaptation
    network: MetaNetwork
    features: Tensor
    step: float

    @staticmethod
    @abstractmethod
    def items(task_set: TaskSet, rows: list[int]) -> Ints:
        """Where the items of some tasks are among those of all."""

    @abstractmethod
    def gradient(self) -> Tensor:
        """``[n_params]`` of the weighted training loss."""

    @abstractmethod
    def alignment(self, slope: Tensor) -> Tensor:
        """How the product of that gradient with ``slope [n_params]`` changes with each weight."""

    @abstractmethod
    def gain(self, alignment: Tensor) -> Tensor:
        """Change of the held-out loss by the step that is judged, to first order: a scalar."""


class WeightedTasks(WeightedBatch):
    """Weights of tasks."""

    @staticmethod
    def items(task_set: TaskSet, rows: list[int]) -> Ints:
        """See ``WeightedBatch.items``."""
        return np.array(rows, dtype=np.int64)

    @cached_property
    def _each(self) -> Tensor:
        layout, task_set = self.adaptation.layout, self.adaptation.task_set
        found = self.features.new_empty(len(task_set), layout.size)
        for batch in self.adaptation.batches():
            gradient = batch_gradients(self.adaptation, batch).gradient
            found[torch.from_numpy(batch.rows)] = layout.flatten(gradient).detach()
        return found

    def gradient(self) -> Tensor:
        """See ``WeightedBatch.gradient``."""
        return self.network.shares(self.features).detach() @ self._each

    def alignment(self, slope: Tensor) -> Tensor:
        """See ``WeightedBatch.alignment``."""
        return self._each @ slope

    def gain(self, alignment: Tensor) -> Tensor:
        """See ``WeightedBatch.gain``."""
        return self.network.lookahead(self.features, alignment, self.step)


class WeightedInstances(WeightedBatch):
    """Weights of instances, with a mean of 1 in every support and query set.

    Those of a labelled data set have a mean of 1 over all tasks.
    """

    @staticmethod
    def items(task_set: TaskSet, rows: list[int]) -> Ints:
        """See ``WeightedBatch.items``."""
        ends = np.cumsum([sum(task.shape) for task in task_set.tasks])
        parts = np.split(np.arange(ends[-1]), ends[:-1])
        return np.concatenate([parts[row] for row in rows])

    @cached_property
    def _weights(self) -> Tensor:
        """``[n_instances]``, differentiable in the meta-network."""
        task_set = self.adaptation.task_set
        sets = [size for task in task_set.tasks for size in task.shape]
        if task_set.labelled:  # whose tasks are cut from one batch
            sets = [task_set.n_instances]
        parts = torch.split(self.features, sets)
        return torch.cat([len(part) * self.network.shares(part) for part in parts])

    def gradient(self) -> Tensor:
        """See ``WeightedBatch.gradient``."""
        layout, total = self.adaptation.layout, torch.zeros(())
        slope = vmap(grad(self.adaptation.objective.task_loss), in_dims=(None, 0, 0, 0))
        for data, weights, _ in self._parts():
            found = slope(self.adaptation.params, *weights, data)
            total = total + layout.flatten(found).sum(0)
        return total / len(self.adaptation.task_set)

    def alignment(self, slope: Tensor) -> Tensor:
        """See ``WeightedBatch.alignment``."""
        tangent, scale = self.adaptation.unit_tangent(slope)
        objective, params = self.adaptation.objective, self.adaptation.params

        def along(w: Tensor, v: Tensor, data: TaskTensors) -> Tensor:
            return along_weights(objective, params, tangent, (w, v), data)

        found = torch.empty_like(self._weights)
        for data, weights, instances in self._parts():
            found[instances] = scale * vmap(along)(*weights, data)
        return found / len(self.adaptation.task_set)

    def gain(self, alignment: Tensor) -> Tensor:
        """See ``WeightedBatch.gain``."""
        return -self.step * (self._weights * alignment.detach()).sum()

    def _parts(self) -> Iterator[tuple[TaskTensors, tuple[Tensor, Tensor], Tensor]]:
        """Tasks, the weights of their support and query, and where those are."""
        weights = self._weights.detach()
        for batch in self.adaptation.batches():
            instances = torch.from_numpy(batch.instances)
            n = batch.data.support_y.shape[1]
            each = weights[instances]
            yield batch.data, (each[:, :n], each[:, n:]), instances
