"""Meta-network training data selection (arXiv 2606.00571), for tasks and for their instances.

A learner is trained on weighted data while a meta-network learns the weights: after each batch,
the gradient ``g`` of held-out tasks, where one more step on the weighted batch would lead, says how
much every weight would have helped. For a task that is ``a_k = g . D L_k``; for an instance, whose
weight acts through the adaptation as well, ``d/d omega [g . D L_k]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metaaudit.bilevel import Adaptation, Advance, batch_gradients
from metaaudit.cache import Arrays
from metaaudit.config.mts import MtsConfig
from metaaudit.config.training import TrainingConfig
from metaaudit.errors import IncompleteError
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Layout, Params
from metaaudit.selection.features import standardised
from metaaudit.selection.learning import Learning
from metaaudit.selection.meta_network import MetaNetwork, effective_batch
from metaaudit.selection.weighted_batch import WeightedBatch

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
    effective: Floats
    held_out_loss: Floats


@dataclass(frozen=True)
class Selector:
    """Trains a learner and the meta-network beside it.

    Attributes:
        unit: What is weighted.
        adaptation: Gives the adaptation of tasks at meta-parameters.
        train: Training tasks.
        held_out: Tasks whose loss decides.
        config: The ``influence.mts`` section.
        training: The ``training`` section: the learner's rate, decay and schedule.
        seed: Of weights and orders.
    """

    unit: type[WeightedBatch]
    adaptation: Callable[[Params, TaskSet], Adaptation]
    train: TaskSet
    held_out: TaskSet
    config: MtsConfig
    training: TrainingConfig
    seed: int

    def epoch(
        self, number: int, before: Arrays | None, start: Params, features: Floats, advance: Advance
    ) -> Arrays:
        """One more epoch.

        Args:
            number: How many there were.
            before: What the one before gave; nothing of the first.
            start: Meta-parameters that the first begins with.
            features: ``[n_items, width]`` of what is weighted.
            advance: Told of progress.

        Returns:
            All that the next epoch, or ``selected``, needs.

        Raises:
            IncompleteError: Numbers are not finite.
        """
        x = torch.from_numpy(standardised(features)).to(next(iter(start.values())))
        learning = Learning.begun(start, self.config, x.shape[1], self.seed)
        if before is not None:
            learning.restore(before)
        for rows, others, progress in self._batches(number):
            loss = self._step(learning, x, rows, others, progress)
            advance(len(rows))
        _check_finite(number, loss, learning.network)
        weights = learning.network.weights(x).detach().double().cpu()
        effective = effective_batch(weights / weights.sum()) / len(weights)
        learning.note(weights=weights.numpy(), effective=effective, held_out_loss=loss)
        return learning.arrays()

    def selected(self, arrays: Arrays) -> Selected:
        """What the meta-network came to, from what the last epoch gave."""
        weights = arrays["weights"]
        settled = weights[len(weights) // 2 :].mean(axis=0)
        return Selected(settled, arrays["effective"], arrays["held_out_loss"])

    def _step(
        self, learning: Learning, x: Tensor, rows: list[int], others: list[int], progress: float
    ) -> float:
        """One step of both; the loss of held-out tasks after the one that is judged."""
        params = learning.state.params
        some = self.adaptation(params, self.train.select(rows))
        own = x[self.unit.items(self.train, rows)]
        batch = self.unit(some, learning.network, own, self.config.lookahead)
        gradient = batch.gradient()
        slope, loss = self._held_out(params, gradient, others)
        learning.optimiser.zero_grad()
        batch.gain(batch.alignment(slope)).backward()  # type: ignore[no-untyped-call]
        learning.optimiser.step()
        step = Layout.of(params).unflatten(gradient, params)
        rate = self.training.rate(progress, self.config.epochs)
        learning.state = learning.state.step(step, rate, self.training.weight_decay)
        return loss

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


def _check_finite(epoch: int, loss: float, network: MetaNetwork) -> None:
    finite = all(bool(p.isfinite().all()) for p in network.layers.parameters())
    if not (finite and math.isfinite(loss)):
        raise IncompleteError(
            "learned selection",
            f"epoch {epoch + 1} gave numbers that are not finite",
            "finite losses and gradients",
            "lower training.lr or influence.mts.lr",
        )
