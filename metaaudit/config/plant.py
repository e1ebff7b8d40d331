"""The ``plant`` section: wrong labels put into the training tasks on purpose."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from metaaudit.config.section import Section, Seed

Share = Annotated[float, Field(ge=0, lt=1)]
WAYS = ("flips", "confusable", "corrupted", "permuted")
"""Keys that are shares: each a way to change labels."""


class PlantConfig(Section):
    """Wrong labels for experiments. Training and scoring both see them; no file is changed.

    Tasks are corrupted or permuted or neither; flips fall on the labels of the tasks left.

    Attributes:
        flips: Share of those labels, support and query, that become another class of their task.
        confusable: Share of those labels that become the class of their task that looks most alike.
        corrupted: Share of the tasks in which ``corrupted_labels`` of the labels are changed.
        corrupted_labels: Share of a corrupted task's labels, support and query, that are changed.
        permuted: Share of the tasks whose query labels follow another class mapping.
        seed: Of every choice.
    """

    flips: Share = 0.0
    confusable: Share = 0.0
    corrupted: Share = 0.0
    corrupted_labels: Annotated[float, Field(gt=0, le=1)] = 0.8
    permuted: Share = 0.0
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_way_to_flip(self) -> PlantConfig:
        if self.flips and self.confusable:
            raise ValueError("flips and confusable are two ways to change labels; keep one")
        if self.corrupted + self.permuted > 1:
            raise ValueError("corrupted and permuted are shares of different tasks: 1 at most")
        return self

    @property
    def anything(self) -> bool:
        """Whether any label is changed."""
        return any(getattr(self, way) for way in WAYS)
