"""The method ``mts``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metaaudit.config.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section

FeatureGroup = Literal["positions", "dynamics", "held-out", "label", "embedding"]


class MtsConfig(Section):
    """Learned selection: a meta-network weights the data that a learner is trained on beside it.

    Attributes:
        start: Where the learner starts: ``scratch``, as meta-training does, or ``checkpoint``.
        epochs: Over the training tasks; a weight is the mean over the last half of them.
        batch: Training tasks of a step, and the evaluation tasks that it is judged by; large ones
            make a direction (``metaaudit diagnose``).
        lookahead: Size of the step that is judged.
        lr: Rate of the meta-network's AdamW.
        weight_decay: Of the meta-network's AdamW.
        hidden: Width of its two hidden layers.
        weights: Divided by their ``sum`` over the batch, or by ``softmax``.
        features: What it looks at: ``positions`` in the embedding of the task, ``dynamics`` along
            the inner steps and, where there are several, the checkpoints, ``held-out``: cosines to
            instances of evaluation tasks, the ``label``, the ``embedding`` itself.
    """

    start: Literal["scratch", "checkpoint"] = "scratch"
    epochs: PositiveInt = 10
    batch: PositiveInt = 64
    lookahead: PositiveFloat = 0.01
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-4
    hidden: PositiveInt = 100
    weights: Literal["sum", "softmax"] = "sum"
    features: Annotated[list[FeatureGroup], Field(min_length=1)] = Field(
        default=["positions", "dynamics", "held-out"]
    )
