"""ANIL: MAML that adapts the head alone (Raghu et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import grad
from torch.nn.functional import linear

from metaaudit.learners.base import Forward, InstanceLoss, Learner, Support
from metaaudit.models import Head, Params


@dataclass(frozen=True)
class ANIL(Learner):
    """K inner SGD steps of the last layer; features are computed once.

    Attributes:
        inner_lr: Inner learning rate.
        steps: Number of steps K.
        head: The network, cut before its last layer.
    """

    inner_lr: float
    steps: int
    head: Head

    def adapt(
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """See ``Learner.adapt``."""
        features = self.head.features(params, support.inputs)

        def inner(head: tuple[Tensor, Tensor]) -> Tensor:
            return (support.weights * loss(linear(features, *head), support.labels)).mean()

        weight, bias = params[self.head.weight], params[self.head.bias]
        for _ in range(self.steps):
            by_weight, by_bias = grad(inner)((weight, bias))
            weight, bias = weight - self.inner_lr * by_weight, bias - self.inner_lr * by_bias
        return {**params, self.head.weight: weight, self.head.bias: bias}
