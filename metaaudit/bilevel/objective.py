"""The weighted bilevel objective, from which every influence is a derivative.

With task weights ``a``, support weights ``w`` and query weights ``v``, all 1 by default::

    theta_k(lambda, w) = adapt(lambda; S_k, w)
    L_k(lambda, w, v)  = (1/m) sum_j v_j loss(z~_j; theta_k(lambda, w))
    F(lambda; a, w, v) = (1/N) sum_k a_k L_k + (delta/2) ||lambda||^2
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from metaaudit.bilevel.batch import TaskTensors
from metaaudit.learners import Forward, InstanceLoss, Learner, Support
from metaaudit.models import Params


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy ``[batch]`` of ``outputs [batch, ways]`` with ``labels [batch]``."""
    return functional.cross_entropy(outputs, labels, reduction="none")


@dataclass(frozen=True)
class Objective:
    """``L_k`` for one task at a time; ``over_tasks`` maps its functions over a batch.

    Attributes:
        forward: The model.
        learner: How a task is adapted to.
        loss: Loss of each instance, in both levels.
    """

    forward: Forward
    learner: Learner
    loss: InstanceLoss = cross_entropy

    def adapt(self, params: Params, weights: Tensor, data: TaskTensors) -> Params:
        """Adapted parameters ``theta_k(lambda, w)``."""
        support = Support(data.support_x, data.support_y, weights)
        return self.learner.adapt(self.forward, self.loss, params, support)

    def losses(self, theta: Params, x: Tensor, y: Tensor) -> Tensor:
        """Loss ``[batch]`` of each instance at ``theta``."""
        return self.loss(self.forward(theta, x), y)

    def mean_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar, from ``outputs [batch, ways]``."""
        return self.loss(outputs, labels).mean()

    def support_loss(self, theta: Params, data: TaskTensors) -> Tensor:
        """The inner loss at unit weights, a scalar: mean over the support."""
        return self.losses(theta, data.support_x, data.support_y).mean()

    def query_loss(self, theta: Params, data: TaskTensors) -> Tensor:
        """The outer loss at unit weights, a scalar: mean over the query instances."""
        return self.losses(theta, data.query_x, data.query_y).mean()

    def task_loss(
        self, params: Params, support_weights: Tensor, query_weights: Tensor, data: TaskTensors
    ) -> Tensor:
        """``L_k(lambda, w, v)``, a scalar.

        Args:
            params: Meta-parameters ``lambda``.
            support_weights: ``w [n]``.
            query_weights: ``v [m]``.
            data: One task.
        """
        adapted = self.adapt(params, support_weights, data)
        return (query_weights * self.losses(adapted, data.query_x, data.query_y)).mean()


def unit_weights(data: TaskTensors) -> tuple[Tensor, Tensor]:
    """Weights of 1 for every support and every query instance of a task or a batch."""
    like = data.support_x
    return like.new_ones(data.support_y.shape), like.new_ones(data.query_y.shape)


def over_tasks(function: Callable[..., Any], params: Params, data: TaskTensors) -> Any:
    """``function(params, w, v, task)`` for every task of a batch, with unit weights."""
    return vmap(function, in_dims=(None, 0, 0, 0))(params, *unit_weights(data), data)
