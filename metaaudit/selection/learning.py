"""A learner in training and the meta-network that learns beside it, as arrays after any epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from metaaudit.cache import Arrays
from metaaudit.config.mts import MtsConfig
from metaaudit.models import Layout, Params
from metaaudit.selection.meta_network import MetaNetwork
from metaaudit.training import TrainingState

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW has of each parameter, beside its count of steps."""


@dataclass
class Learning:
    """All that the next step depends on, and what was noted after each epoch.

    Attributes:
        state: Of the learner.
        network: The meta-network.
        optimiser: Of the meta-network.
        noted: By name, one entry an epoch.
    """

    state: TrainingState
    network: MetaNetwork
    optimiser: torch.optim.AdamW
    noted: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def begun(cls, start: Params, config: MtsConfig, width: int, seed: int) -> Learning:
        """Before the first step.

        Args:
            start: Meta-parameters of the learner.
            config: The ``influence.mts`` section.
            width: Number of features.
            seed: Of the network's weights.
        """
        like = next(iter(start.values()))
        network = MetaNetwork.new(width, config.hidden, config.weights, seed, like)
        optimiser = torch.optim.AdamW(
            network.layers.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        return cls(TrainingState.initial(start), network, optimiser)

    def note(self, **values: np.ndarray | float) -> None:
        """Notes what there is after an epoch."""
        for name, value in values.items():
            self.noted.setdefault(name, []).append(np.asarray(value))

    def arrays(self) -> Arrays:
        """All of it, after at least one epoch."""
        layout, own = Layout.of(self.state.params), list(self.network.layers.parameters())
        found = {
            "params": layout.flatten(self.state.params),
            "mean": layout.flatten(self.state.mean),
            "square": layout.flatten(self.state.square),
            "network": torch.cat([p.detach().flatten() for p in own]),
            **{
                name: torch.cat([self.optimiser.state[p][name].flatten() for p in own])
                for name in MOMENTS
            },
        }
        arrays: Arrays = {name: tensor.cpu().numpy() for name, tensor in found.items()}
        arrays["steps"] = np.array(self.state.steps)
        return arrays | {name: np.stack(values) for name, values in self.noted.items()}

    def restore(self, arrays: Arrays) -> None:
        """Goes on from arrays, which it gave after some epoch."""
        like = self.state.params
        layout, steps = Layout.of(like), int(arrays["steps"])

        def of_learner(name: str) -> Params:
            return layout.unflatten(torch.from_numpy(arrays[name]), like)

        params, mean, square = map(of_learner, ("params", "mean", "square"))
        self.state = TrainingState(params, mean, square, steps)
        own = list(self.network.layers.parameters())
        moments = [self._parted(arrays[name]) for name in MOMENTS]
        for p, values, *each in zip(own, self._parted(arrays["network"]), *moments, strict=True):
            p.data.copy_(values)
            counted = {"step": torch.tensor(float(steps))}
            self.optimiser.state[p] = counted | dict(zip(MOMENTS, each, strict=True))
        rest = arrays.keys() - {"params", "mean", "square", "network", "steps", *MOMENTS}
        self.noted = {name: list(arrays[name]) for name in rest}

    def _parted(self, values: np.ndarray) -> list[Tensor]:
        """A vector as tensors like the network's own."""
        own = list(self.network.layers.parameters())
        parts = torch.split(torch.from_numpy(values), [p.numel() for p in own])
        return [part.reshape(p.shape).to(p) for part, p in zip(parts, own, strict=True)]
