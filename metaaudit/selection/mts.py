"""Meta-network training data selection (arXiv 2606.00571), for tasks and for their instances.

A learner is trained on weighted data while a meta-network learns the weights: after each batch,
the gradient ``g`` of held-out tasks, where one more step on the weighted batch would lead, says how
much every weight would have helped. For a task that is ``a_k = g . D L_k``; for an instance, whose
weight acts through the adaptation as well, ``d/d omega [g . D L_k]``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from metaaudit.bilevel import Adaptation, Advance, TaskTensors, along_weights, batch_gradients
from metaaudit.config.mts import MtsConfig
from metaaudit.config.training import TrainingConfig
from metaaudit.errors import IncompleteError
from metaaudit.inputs.task_set import Ints, TaskSet
from metaaudit.models import Layout, Params
from metaaudit.selection.features import standardised, task_features
from metaaudit.selection.meta_network import MetaNetwork, effective_batch
from metaaudit.training import TrainingState

Floats = np.ndarray


@dataclass(frozen=True)
class Selected:
    """What the meta-network came to.

    Attributes:
        weights: ``[n]`` in (0, 1), the mean over the last half of the epochs.
        effective: ``1 / sum p^2`` over all items after each epoch, as a share of their number.
        held_out_loss: Mean loss of held-out tasks after each epoch's last step.
    """

    weights: Floats
    effective: list[float]
    held_out_loss: list[float]


@dataclass(frozen=True)
class Selector:
    """Trains a learner and the meta-network beside it.

    Attributes:
        adaptation: Gives the adaptation of tasks at meta-parameters.
        train: Training tasks.
        held_out: Tasks whose loss decides.
        config: The ``influence.mts`` section.
        training: The ``training`` section: the learner's rate, decay and schedule.
        seed: Of weights and orders.
    """

    adaptation: Callable[[Params, TaskSet], Adaptation]
    train: TaskSet
    held_out: TaskSet
    config: MtsConfig
    training: TrainingConfig
    seed: int

    def tasks(self, start: Params, features: Floats, advance: Advance) -> Selected:
        """Weights of tasks, from features ``[n_instances, width]`` of their instances."""
        return self._select(_Tasks, start, task_features(features, self.train), advance)

    def instances(self, start: Params, features: Floats, advance: Advance) -> Selected:
        """Weights of instances, from their features ``[n_instances, width]``."""
        return self._select(_Instances, start, features, advance)

    def _select(
        self, unit: type[_Batch], start: Params, features: Floats, advance: Advance
    ) -> Selected:
        config, like = self.config, next(iter(start.values()))
        x = torch.from_numpy(standardised(features)).to(like)
        network = MetaNetwork.new(x.shape[1], config.hidden, config.weights, self.seed, like)
        optimiser = torch.optim.AdamW(
            network.layers.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        state, kept, effective, losses = TrainingState.initial(start), [], [], []
        for epoch in range(config.epochs):
            for rows, others, progress in self._batches(epoch):
                some = self.adaptation(state.params, self.train.select(rows))
                batch = unit(some, network, x[unit.items(self.train, rows)], config.lookahead)
                gradient = batch.gradient()
                slope, loss = self._held_out(state.params, gradient, others)
                optimiser.zero_grad()
                batch.gain(batch.alignment(slope)).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                layout = Layout.of(state.params)
                step = layout.unflatten(gradient, state.params)
                rate = self.training.rate(progress, config.epochs)
                state = state.step(step, rate, self.training.weight_decay)
                advance(len(rows))
            _check_finite(epoch, loss, network)
            weights = network.weights(x).detach().double().cpu()
            kept.append(weights.numpy())
            effective.append(effective_batch(weights / weights.sum()) / len(weights))
            losses.append(loss)
        return Selected(np.mean(kept[len(kept) // 2 :], axis=0), effective, losses)

    def _batches(self, epoch: int) -> Iterator[tuple[list[int], list[int], float]]:
        """Rows of training and of held-out tasks, and how many epochs are done."""
        rng, size = np.random.default_rng([self.seed, epoch]), self.config.batch
        order = rng.permutation(len(self.train)).tolist()
        for at in range(0, len(order), size):
            count = min(size, len(self.held_out))
            others = rng.choice(len(self.held_out), count, replace=False).tolist()
            yield order[at : at + size], others, epoch + at / len(order)

    def _held_out(self, params: Params, gradient: Tensor, rows: list[int]) -> tuple[Tensor, float]:
        """Mean gradient ``[n_params]`` and loss of held-out tasks after the step that is judged."""
        layout = Layout.of(params)
        moved = layout.flatten(params) - self.config.lookahead * gradient
        there = self.adaptation(layout.unflatten(moved, params), self.held_out.select(rows))
        total, loss = torch.zeros_like(gradient), 0.0
        for batch in there.batches():
            found = batch_gradients(there, batch)
            total += layout.flatten(found.gradient).sum(0)
            m = batch.data.query_y.shape[1]
            loss += float(found.losses[:, -m:].mean(1).sum())
        return total / len(rows), loss / len(rows)


@dataclass(frozen=True)
class _Batch(ABC):
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


class _Tasks(_Batch):
    """Weights of tasks."""

    @staticmethod
    def items(task_set: TaskSet, rows: list[int]) -> Ints:
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
        return self.network.shares(self.features).detach() @ self._each

    def alignment(self, slope: Tensor) -> Tensor:
        return self._each @ slope

    def gain(self, alignment: Tensor) -> Tensor:
        return self.network.lookahead(self.features, alignment, self.step)


class _Instances(_Batch):
    """Weights of instances, with a mean of 1 in every support and query set."""

    @staticmethod
    def items(task_set: TaskSet, rows: list[int]) -> Ints:
        ends = np.cumsum([sum(task.shape) for task in task_set.tasks])
        parts = np.split(np.arange(ends[-1]), ends[:-1])
        return np.concatenate([parts[row] for row in rows])

    @cached_property
    def _weights(self) -> Tensor:
        """``[n_instances]``, differentiable in the meta-network."""
        sets = [size for task in self.adaptation.task_set.tasks for size in task.shape]
        parts = torch.split(self.features, sets)
        return torch.cat([len(part) * self.network.shares(part) for part in parts])

    def gradient(self) -> Tensor:
        layout, total = self.adaptation.layout, torch.zeros(())
        slope = vmap(grad(self.adaptation.objective.task_loss), in_dims=(None, 0, 0, 0))
        for data, weights, _ in self._parts():
            found = slope(self.adaptation.params, *weights, data)
            total = total + layout.flatten(found).sum(0)
        return total / len(self.adaptation.task_set)

    def alignment(self, slope: Tensor) -> Tensor:
        tangent, scale = self.adaptation.unit_tangent(slope)
        objective, params = self.adaptation.objective, self.adaptation.params

        def along(w: Tensor, v: Tensor, data: TaskTensors) -> Tensor:
            return along_weights(objective, params, tangent, (w, v), data)

        found = torch.empty_like(self._weights)
        for data, weights, instances in self._parts():
            found[instances] = scale * vmap(along)(*weights, data)
        return found / len(self.adaptation.task_set)

    def gain(self, alignment: Tensor) -> Tensor:
        return -self.step * (self._weights * alignment.detach()).sum()

    def _parts(self) -> Iterator[tuple[TaskTensors, tuple[Tensor, Tensor], Tensor]]:
        """Tasks, the weights of their support and query, and where those are."""
        weights = self._weights.detach()
        for batch in self.adaptation.batches():
            instances = torch.from_numpy(batch.instances)
            n = batch.data.support_y.shape[1]
            each = weights[instances]
            yield batch.data, (each[:, :n], each[:, n:]), instances


def _check_finite(epoch: int, loss: float, network: MetaNetwork) -> None:
    finite = all(bool(p.isfinite().all()) for p in network.layers.parameters())
    if not (finite and math.isfinite(loss)):
        raise IncompleteError(
            "learned selection",
            f"epoch {epoch + 1} gave numbers that are not finite",
            "finite losses and gradients",
            "lower training.lr or influence.mts.lr",
        )
