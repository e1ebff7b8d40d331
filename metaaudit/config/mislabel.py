"""The ``mislabel`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metaaudit.config.section import PositiveInt, Section, Seed

Signal = Literal[
    "crossfit-loss",
    "crossfit-margin",
    "loss",
    "margin",
    "leave-one-out",
    "self-influence",
    "own-influence",
    "combined",
]


UNADAPTED_SIGNALS: tuple[Signal, ...] = ("loss", "margin", "self-influence")
"""Those of a learner that does not adapt, and so cannot be kept from a label; the first is its
default."""

FITTED = ("folds", "repeats", "steps", "seed")
"""Keys of the learners that are fitted to parts of a task."""


class MislabelConfig(Section):
    """Mislabeled instances, and what is wrong with whole tasks.

    Attributes:
        signal: What ranks the instances: ``crossfit-loss`` or ``crossfit-margin`` (by a learner
            that adapted to the rest of the task), ``combined`` (the mean of that loss and the loss
            by a learner of the rest of the support, in five folds), ``leave-one-out`` (to the
            whole rest of the support), ``loss`` or ``margin`` (to the whole
            support), ``self-influence`` (by EK-FAC) or ``own-influence`` (on the query loss of its
            own task). A learner that does not adapt has ``loss``, its default, ``margin`` and
            ``self-influence``.
        folds: Parts of a task (support and query pooled), each held out once.
        repeats: Different partitions, whose probabilities are averaged.
        steps: Inner steps of cross-fitting: the learner's own, a number, or ``auto``, the number
            with the best out-of-fold accuracy on a few tasks.
        seed: Seed of the partitions.
        fdr: False-discovery rate of the flags ``mislabeled``, ``noisy``, ``contradictory`` and
            ``outlier``.
        noisy_share: A task with more than this share of wrong labels is ``noisy``.
    """

    signal: Signal = "combined"
    folds: Annotated[int, Field(ge=2)] = 5
    repeats: PositiveInt = 1
    steps: Literal["learner", "auto"] | PositiveInt = "learner"
    seed: Seed = 0
    fdr: Annotated[float, Field(gt=0, le=0.25)] = 0.1
    noisy_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
