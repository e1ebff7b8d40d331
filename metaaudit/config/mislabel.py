"""The ``mislabel`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metaaudit.config.section import PositiveInt, Section, Seed


class MislabelConfig(Section):
    """Cross-fitted mislabel scores.

    Attributes:
        folds: Parts of a task (support and query pooled), each held out once.
        repeats: Different partitions, whose probabilities are averaged.
        seed: Seed of the partitions.
    """

    folds: Annotated[int, Field(ge=2)] = 10
    repeats: PositiveInt = 1
    seed: Seed = 0
