"""MAML: a few steps of gradient descent, unrolled (Finn et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch.func import grad

from metaaudit.learners.base import Forward, InstanceLoss, Learner, Support, weighted_loss
from metaaudit.models import Params


@dataclass(frozen=True)
class MAML(Learner):
    """K inner SGD steps.

    Attributes:
        inner_lr: Inner learning rate.
        steps: Number of steps K.
    """

    inner_lr: float
    steps: int

    def adapt(
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """See ``Learner.adapt``."""
        slope = grad(weighted_loss(forward, loss, support))
        theta = params
        for _ in range(self.steps):
            gradient = slope(theta)
            theta = {name: p - self.inner_lr * gradient[name] for name, p in theta.items()}
        return theta
