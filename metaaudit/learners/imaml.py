"""iMAML: adaptation that solves a proximal inner problem (Rajeswaran et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value

from metaaudit.learners.base import Forward, InstanceLoss
from metaaudit.models import Params

SHRINK, GROW = 0.5, 1.5


@dataclass(frozen=True)
class IMAML:
    """Gradient descent on ``(1/n) sum_i w_i loss_i + (rho/2) ||theta - lambda||^2`` to a tolerance.

    A step that would raise the objective is not taken and the rate halved; one that lowers it lets
    the rate grow again, up to ``inner_lr``. Nothing moves once the gradient's norm is below the
    tolerance times its first one.

    Attributes:
        inner_lr: Largest learning rate.
        steps: Bound on the gradient steps.
        proximity: ``rho``.
        tolerance: Relative norm of the gradient at which the problem is solved.
    """

    inner_lr: float
    steps: int
    proximity: float
    tolerance: float

    def adapt(
        self,
        forward: Forward,
        loss: InstanceLoss,
        params: Params,
        support_x: Tensor,
        support_y: Tensor,
        weights: Tensor,
    ) -> Params:
        """See ``Learner.adapt``. Whether it converged is for the caller to look at."""

        def inner(theta: Params) -> Tensor:
            pull = sum(((theta[name] - p) ** 2).sum() for name, p in params.items())
            mean = (weights * loss(forward(theta, support_x), support_y)).mean()
            return mean + 0.5 * self.proximity * pull

        theta = params
        slope, value = grad_and_value(inner)(theta)
        first = _norm(slope)
        rate = torch.full_like(first, self.inner_lr)
        for _ in range(self.steps):
            moving = _norm(slope) > self.tolerance * first
            tried = {name: p - rate * slope[name] for name, p in theta.items()}
            new_slope, new_value = grad_and_value(inner)(tried)
            # Near the solution the value no longer tells two points apart, but the gradient does.
            taken = moving & ((new_value <= value) | (_norm(new_slope) <= _norm(slope)))
            theta = {name: p.where(taken, theta[name]) for name, p in tried.items()}
            slope = {name: g.where(taken, slope[name]) for name, g in new_slope.items()}
            value = new_value.where(taken, value)
            grown = (GROW * rate).clamp_max(self.inner_lr)
            rate = torch.where(taken, grown, torch.where(moving, SHRINK * rate, rate))
        return theta


def _norm(slope: Params) -> Tensor:
    # Detached: what is decided by it has no derivative.
    return torch.stack([g.detach().square().sum() for g in slope.values()]).sum().sqrt()
