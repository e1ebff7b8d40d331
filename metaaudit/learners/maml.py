"""MAML: a few steps of gradient descent, unrolled (Finn et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import grad

from metaaudit.learners.base import Forward, InstanceLoss
from metaaudit.models import Params


@dataclass(frozen=True)
class MAML:
    """K inner SGD steps.

    Attributes:
        inner_lr: Inner learning rate.
        steps: Number of steps K.
        first_order: Whether derivatives ignore how the inner gradients depend on the
            meta-parameters (first-order MAML). The meta-update is then no gradient of any loss.
    """

    inner_lr: float
    steps: int
    first_order: bool = False

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
            if self.first_order:
                gradient = {name: g.detach() for name, g in gradient.items()}
            theta = {name: p - self.inner_lr * gradient[name] for name, p in theta.items()}
        return theta
