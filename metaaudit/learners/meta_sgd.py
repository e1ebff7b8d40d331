"""Meta-SGD: MAML with a meta-learned rate for every parameter (Li et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.func import grad

from metaaudit.learners.base import Forward, InstanceLoss, Learner, Support, weighted_loss
from metaaudit.models import Params

RATES = "lrs."
"""Rates are named as learn2learn does: ``lrs.N`` for the N-th parameter of the network."""


@dataclass(frozen=True)
class MetaSGD(Learner):
    """K inner SGD steps, each entry of a parameter with a rate of its own.

    Attributes:
        inner_lr: The rate that meta-training starts from.
        steps: Number of steps K.
    """

    inner_lr: float
    steps: int

    def adapt(
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """See ``Learner.adapt``."""
        slope = grad(weighted_loss(forward, loss, support))
        theta = {name: p for name, p in params.items() if not name.startswith(RATES)}
        rates = {name: params[f"{RATES}{n}"] for n, name in enumerate(theta)}
        for _ in range(self.steps):
            gradient = slope(theta)
            theta = {name: p - rates[name] * gradient[name] for name, p in theta.items()}
        return theta

    def meta_parameters(self, initial: Params) -> Params:
        """The network's parameters and their rates."""
        rates = {
            f"{RATES}{n}": torch.full_like(p, self.inner_lr) for n, p in enumerate(initial.values())
        }
        return {**initial, **rates}
