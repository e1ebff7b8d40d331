"""The ``training`` section."""

from __future__ import annotations

import math
from typing import Literal

from metaaudit.config.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section, Seed


class TrainingConfig(Section):
    """The reference meta-trainer.

    Attributes:
        epochs: Passes over the training tasks.
        batch: Tasks a meta-update.
        lr: Learning rate of Adam.
        schedule: ``cosine`` decays the rate to zero over all epochs.
        weight_decay: L2 weight ``delta`` of the outer objective; the influence uses it too.
        seed: Seed of the initial weights and the order of tasks.
        snapshots: Every so many epochs a numbered checkpoint is kept; absent: none.
    """

    epochs: PositiveInt = 40
    batch: PositiveInt = 25
    lr: PositiveFloat = 0.003
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: NonNegativeFloat = 0.0
    seed: Seed = 0
    snapshots: PositiveInt | None = None

    def rate(self, progress: float, epochs: int) -> float:
        """The learning rate after so many epochs of all, by the schedule."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress / epochs))
