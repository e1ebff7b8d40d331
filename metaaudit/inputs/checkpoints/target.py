"""What a checkpoint is to be fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Target:
    """The tensors that a learner and its network want.

    Attributes:
        template: Meta-parameters, as the learner names and shapes them.
        network: All parameters of the network, in order; the template may lack some of them.
        buffers: The network's tensors that are no parameters; loaded where a file has them.
        required: Names of the buffers that a file must have.
        optional: Names of the template that a file may lack; they keep the template's value.
        aliases: Further names of a parameter or buffer, where the network has several.
    """

    template: Tensors
    network: Tensors
    buffers: Tensors = field(default_factory=dict)
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The template's tensors that are weights of the network."""
        return {name: p for name, p in self.template.items() if name in self.network}

    @property
    def wanted(self) -> dict[str, torch.Tensor]:
        """All that is taken from a file where it is there."""
        return {**self.buffers, **self.template}

    @property
    def known(self) -> dict[str, torch.Tensor]:
        """All that a file may hold of learner and network."""
        return {**self.network, **self.wanted}

    @property
    def own(self) -> dict[str, torch.Tensor]:
        """The template's tensors that are the learner's own."""
        return {name: p for name, p in self.template.items() if name not in self.network}

    def names(self, name: str) -> tuple[str, ...]:
        """All names of a tensor."""
        return (name, *self.aliases.get(name, ()))
