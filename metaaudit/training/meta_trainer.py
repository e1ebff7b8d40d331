"""The reference meta-trainer: minimises the same objective that the influences differentiate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from metaaudit.bilevel import Adaptation, batch_gradients
from metaaudit.config.training import TrainingConfig
from metaaudit.errors import IncompleteError
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params
from metaaudit.training.state import Epoch, TrainingState


@dataclass(frozen=True)
class MetaTrainer:
    """Adam on ``F(lambda) = (1/N) sum_k L_k + (delta/2) ||lambda||^2`` over batches of tasks.

    Attributes:
        differentiate: Gives the adaptation of tasks at meta-parameters, and its derivatives.
        task_set: Training tasks.
        config: The ``training`` section.
    """

    differentiate: Callable[[Params, TaskSet], Adaptation]
    task_set: TaskSet
    config: TrainingConfig

    def run(
        self,
        state: TrainingState,
        finished: Callable[[TrainingState], None],
        advance: Callable[[int, float, float], None] = lambda *_: None,
    ) -> TrainingState:
        """Trains from ``state`` to the last epoch.

        Args:
            state: Where to start: epoch 0, or a saved state.
            finished: Called with the state after every epoch, to save it.
            advance: Told, after every batch, the number of its tasks, its loss and its accuracy.

        Raises:
            IncompleteError: The loss is not finite.
        """
        while state.epoch < self.config.epochs:
            state = self._epoch(state, advance)
            finished(state)
        return state

    def _epoch(
        self, state: TrainingState, advance: Callable[[int, float, float], None]
    ) -> TrainingState:
        started = time.perf_counter()
        # The order of an epoch depends on the seed and the epoch alone, so that a resumed run
        # sees what an uninterrupted one would have seen.
        rng = np.random.default_rng([self.config.seed, state.epoch])
        order = rng.permutation(len(self.task_set)).tolist()
        batches = [
            order[i : i + self.config.batch] for i in range(0, len(order), self.config.batch)
        ]
        losses, hits = 0.0, 0.0
        rate = self.config.lr
        for position, rows in enumerate(batches):
            rate = self.config.rate(state.epoch + position / len(batches), self.config.epochs)
            gradient, loss, accuracy = self._mean_gradient(state.params, rows)
            if not (math.isfinite(loss) and all(g.isfinite().all() for g in gradient.values())):
                raise IncompleteError(
                    "train",
                    self._not_finite(state.epoch + 1, loss),
                    "finite numbers",
                    "lower training.lr or learner.inner_lr",
                )
            state = state.step(gradient, rate, self.config.weight_decay)
            losses, hits = losses + loss * len(rows), hits + accuracy * len(rows)
            advance(len(rows), loss, accuracy)
        n, seconds = len(order), time.perf_counter() - started
        return state.after(Epoch(state.epoch + 1, losses / n, hits / n, rate, seconds))

    @staticmethod
    def _not_finite(epoch: int, loss: float) -> str:
        if math.isfinite(loss):
            return f"a gradient of epoch {epoch} is not finite"
        return f"the loss of epoch {epoch} is {loss}"

    def _mean_gradient(self, params: Params, rows: list[int]) -> tuple[Params, float, float]:
        """Gradient of the mean loss over some tasks, that loss, and the query accuracy."""
        total = {name: torch.zeros_like(p) for name, p in params.items()}
        loss, accuracy = 0.0, 0.0
        adaptation = self.differentiate(params, self.task_set.select(rows))
        for batch in adaptation.batches():
            found = batch_gradients(adaptation, batch)
            total = {name: total[name] + g.sum(0) for name, g in found.gradient.items()}
            m = batch.data.query_y.shape[1]
            loss += float(found.losses[:, -m:].mean(1).sum())
            accuracy += float(found.correct[:, -m:].to(found.losses).mean(1).sum())
        n = len(rows)
        return {name: g / n for name, g in total.items()}, loss / n, accuracy / n
