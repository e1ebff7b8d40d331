"""Curvature of the outer loss in the adapted parameters: what lies between ``J^T`` and ``J``.

Each of these is the form ``C_k`` of a total Hessian ``(1/N) sum_k J_k^T C_k J_k`` that leaves out
how ``J_k`` itself changes. Each takes one task and returns ``C_k q``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.func import grad, jvp

from metaaudit.bilevel.batch import TaskTensors
from metaaudit.bilevel.objective import Objective
from metaaudit.models import Params, pullback

OuterCurvature = Callable[[Objective, Params, Params, TaskTensors], Params]
"""``(objective, theta, q, task) -> C_k q``."""


def partial_hessian(
    objective: Objective, theta: Params, tangent: Params, data: TaskTensors
) -> Params:
    """``d^2 L_k / d theta^2``."""
    gradient = grad(lambda theta: objective.query_loss(theta, data))
    product: Params = jvp(gradient, (theta,), (tangent,))[1]
    return product


def gauss_newton(objective: Objective, theta: Params, tangent: Params, data: TaskTensors) -> Params:
    """The network's Jacobian around the Hessian of the mean loss on its outputs."""

    def forward(theta: Params) -> Tensor:
        return objective.forward(theta, data.query_x)

    def slope(outputs: Tensor) -> Tensor:
        gradient: Tensor = grad(lambda out: objective.loss(out, data.query_y).mean())(outputs)
        return gradient

    outputs, pull = pullback(forward, theta)
    moved = jvp(forward, (theta,), (tangent,))[1]
    product: Params = pull(jvp(slope, (outputs,), (moved,))[1])
    return product


def instance_fisher(
    objective: Objective, theta: Params, tangent: Params, data: TaskTensors
) -> Params:
    """``(1/m) sum_j g_j g_j^T`` of the query instances' gradients."""

    def losses(theta: Params) -> Tensor:
        return objective.losses(theta, data.query_x, data.query_y)

    values, pull = pullback(losses, theta)
    slopes = jvp(losses, (theta,), (tangent,))[1]
    product: Params = pull(slopes / len(values))
    return product
