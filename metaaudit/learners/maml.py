"""MAML: a few steps of gradient descent, unrolled (Finn et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import grad

from metaaudit.learners.base import Forward, InstanceLoss, Learner
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
        self,
        forward: Forward,
        loss: InstanceLoss,
        params: Params,
        support_x: Tensor,
        support_y: Tensor,
        weights: Tensor,
    ) -> Params:
        """See ``Learner.adapt``."""

        def inner(theta: Params) -> Tensor:
            return (weights * loss(forward(theta, support_x), support_y)).mean()

        theta = params
        for _ in range(self.steps):
            gradient = grad(inner)(theta)
            theta = {name: p - self.inner_lr * gradient[name] for name, p in theta.items()}
        return theta
