"""iMAML: adaptation that solves a proximal inner problem (Rajeswaran et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value

from metaaudit.learners.base import Forward, InstanceLoss, Learner, Support, weighted_loss
from metaaudit.models import Params

SHRINK, GROW = 0.5, 1.2
ROUNDING = 4.0
"""Multiples of the machine's precision by which a value may rise and still count as equal."""


@dataclass(frozen=True)
class IMAML(Learner):
    """Accelerated descent on ``(1/n) sum_i w_i loss_i + (rho/2) ||theta - lambda||^2``.

    Nesterov's method with restarts (O'Donoghue and Candes, 2015). A step without enough decrease
    is not taken and the rate halved, momentum that raises the objective is dropped, and a step that
    succeeds lets the rate grow again, up to ``inner_lr``. Nothing moves once the gradient's norm is
    below the tolerance times its first one.

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
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """See ``Learner.adapt``. Whether it converged is for the caller to look at."""
        data = weighted_loss(forward, loss, support)

        def inner(theta: Params) -> Tensor:
            pull = sum(((theta[name] - p) ** 2).sum() for name, p in params.items())
            return data(theta) + 0.5 * self.proximity * pull

        theta = before = params
        slope, value = grad_and_value(inner)(theta)
        first = _norm(slope)
        slack = ROUNDING * torch.finfo(value.dtype).eps
        rate, count = torch.full_like(first, self.inner_lr), torch.zeros_like(first)
        for _ in range(self.steps):
            momentum = count / (count + 3)
            ahead = {name: p + momentum * (p - before[name]) for name, p in theta.items()}
            slope, here = grad_and_value(inner)(ahead)
            norm = _norm(slope)
            moving = norm > self.tolerance * first
            tried = {name: p - rate * slope[name] for name, p in ahead.items()}
            reached = inner(tried)
            rounding = slack * value.detach().abs()
            enough = reached <= here - 0.5 * rate * norm**2 + rounding
            better = reached <= value + rounding
            taken = moving & enough & better
            # Where the gradient ahead is small enough, that is the solution.
            stays = {name: p.where(moving, ahead[name]) for name, p in theta.items()}
            before, theta = theta, {name: p.where(taken, stays[name]) for name, p in tried.items()}
            value = torch.where(taken, reached, torch.where(moving, value, here))
            count = torch.where(taken, count + 1, 0.0)  # no momentum after a step not taken
            grown = (GROW * rate).clamp_max(self.inner_lr)
            rate = torch.where(taken, grown, torch.where(enough, rate, SHRINK * rate))
        return theta


def _norm(slope: Params) -> Tensor:
    # Detached: what is decided by it has no derivative.
    return torch.stack([g.detach().square().sum() for g in slope.values()]).sum().sqrt()
