"""One way to read a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from metaaudit.inputs.checkpoints.target import Target, Tensors


@dataclass(frozen=True)
class Reading:
    """Which tensor of a file is which of the network's and the learner's.

    Attributes:
        how: How it was found, in words.
        places: Names in the file by names of parameters and buffers, among them those of the
            network that the learner does not use.
        prefix: What the file's names begin with.
        cut: What the model's names begin with and the file's do not.
    """

    how: str
    places: Mapping[str, str]
    prefix: str = ""
    cut: str = ""

    def missing(self, target: Target) -> list[str]:
        """Names that the target must have and this has not."""
        wanted = (*target.template, *target.required)
        return [n for n in wanted if n not in self.places and n not in target.optional]

    def misshapen(self, tensors: Tensors, target: Target) -> list[str]:
        """Names whose tensor in the file has another shape than is wanted."""
        return [
            name
            for name, like in target.wanted.items()
            if name in self.places and tensors[self.places[name]].shape != like.shape
        ]

    def fits(self, tensors: Tensors, target: Target) -> bool:
        """Whether nothing is missing and all shapes are right."""
        return not self.missing(target) and not self.misshapen(tensors, target)

    def differs(self, other: Reading, tensors: Tensors, target: Target) -> str | None:
        """The first of the wanted names that two readings give different values, if any."""
        for name in target.wanted:
            one, two = self.places.get(name), other.places.get(name)
            if one is None or two is None or one == two:
                continue
            if not torch.equal(tensors[one], tensors[two]):
                return name
        return None
