"""Differentiating the optimality condition of the proximal inner problem.

The adapted parameters are taken to solve (Rajeswaran et al., 2019)::

    theta_k(lambda, w) = argmin (1/n) sum_i w_i loss(z_i; theta) + (rho/2) ||theta - lambda||^2

so that, with ``H = d^2/d theta^2 (1/n) sum_i w_i loss(z_i; theta_k) + rho I`` and ``B = H^-1``::

    d theta / d lambda = rho B            d theta / d w_i = -(1/n) B grad loss(z_i; theta_k)
    D L_k              = rho B g,         g = grad L_k(theta_k),  x = B g
    D^2 L_k p          = rho B (A q - T[q] x),                    q = rho B p
    d/d v_j [u . D L_k] = (1/m) grad loss(z~_j) . q,              q = rho B u
    d/d w_i [u . D L_k] = -(1/n) (grad loss(z_i) . r + q . A_i x),   r = B (A q - T[q] x)

where ``A`` is the Hessian of ``L_k`` in ``theta``, ``A_i`` that of ``loss(z_i)``, and ``T[q]`` the
derivative of ``H`` along ``q``. The last two lines are the paper's Stages 1 and 2 (2501.15963) with
``D P`` kept in full, for all instances at once. With an approximate ``B`` the same formulas are
used, and the product stays symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from metaaudit.bilevel.adaptation import Adaptation, Linearised
from metaaudit.bilevel.batch import TaskBatch, TaskTensors
from metaaudit.bilevel.inner.base import InnerInverse, at
from metaaudit.models import Params


@dataclass(frozen=True)
class Implicit(Adaptation):
    """Every derivative by the implicit function theorem.

    Attributes:
        theta: ``[n_tasks, n_params]``, adapted parameters.
        inverse: Applies ``B`` of each task.
        rho: Strength of the pull to the meta-parameters.
        stationarity: ``[n_tasks]``, the norm of the proximal problem's gradient at ``theta`` over
            that of the inner loss at the meta-parameters: 0 where ``theta`` solves it.
        solved: ``[n_tasks, n_params]``, ``x`` of each task, from total gradients that are known
            already; ``None`` where it is solved for at need.
    """

    theta: Tensor
    inverse: InnerInverse
    rho: float
    stationarity: Tensor
    solved: Tensor | None = None

    def over(self, rows: list[int]) -> Self:
        """See ``Adaptation.over``."""
        return replace(
            super().over(rows),
            theta=self.theta[rows],
            inverse=self.inverse.over(rows),
            stationarity=self.stationarity[rows],
            solved=None if self.solved is None else self.solved[rows],
        )

    def with_gradients(self, gradients: Tensor) -> Self:
        """The same, with total gradients ``D L_k [n_tasks, n_params]`` that need no solve."""
        return replace(self, solved=gradients.to(self.theta) / self.rho)

    def adapted(self, batch: TaskBatch) -> Params:
        """See ``Adaptation.adapted``."""
        return self._params(at(self.theta, batch.rows))

    def linearise(self, batch: TaskBatch) -> Linearised:
        """See ``Adaptation.linearise``."""

        def pull(cotangents: Params) -> Params:
            return self._params(self.rho * self._inverse(batch, self.layout.flatten(cotangents)))

        return Linearised(self.adapted(batch), pull)

    def push(self, batch: TaskBatch, tangent: Params) -> Params:
        """See ``Adaptation.push``; ``rho B`` is symmetric."""
        return self._params(self._pushed(batch, tangent))

    def hessian_product(self, batch: TaskBatch, tangent: Params) -> Params:
        """See ``Adaptation.hessian_product``."""
        bent = self._bent(batch, self._pushed(batch, tangent))
        return self._params((self.rho * self._inverse(batch, bent)).sum(0))

    def weight_derivatives(self, batch: TaskBatch, tangent: Params) -> Tensor:
        """See ``Adaptation.weight_derivatives``."""
        q = self._pushed(batch, tangent)
        r = self._inverse(batch, self._bent(batch, q))
        parts = (at(self.theta, batch.rows), q, r, self._solved(batch))
        theta, along_q, along_r, x = map(self._params, parts)
        derivatives: Tensor = vmap(self._instance_derivatives)(
            theta, along_q, along_r, x, batch.data
        )
        return derivatives

    def _pushed(self, batch: TaskBatch, tangent: Params) -> Tensor:
        """``q = rho B p``: ``[batch, n_params]``."""
        flat = self.layout.flatten(tangent)
        return self.rho * self._inverse(batch, flat.expand(len(batch.rows), -1))

    def _solved(self, batch: TaskBatch) -> Tensor:
        """``x = B g``: ``[batch, n_params]``."""
        if self.solved is not None:
            return at(self.solved, batch.rows)
        gradient = vmap(grad(self.objective.query_loss))(self.adapted(batch), batch.data)
        return self._inverse(batch, self.layout.flatten(gradient))

    def _bent(self, batch: TaskBatch, q: Tensor) -> Tensor:
        """``A q - T[q] x``: ``[batch, n_params]``."""

        def one(theta: Params, q: Params, x: Params, data: TaskTensors) -> Params:
            def inner_product(theta: Params) -> Params:
                inner = grad(lambda theta: self.objective.support_loss(theta, data))
                product: Params = jvp(inner, (theta,), (x,))[1]
                return product

            outer = grad(lambda theta: self.objective.query_loss(theta, data))
            straight: Params = jvp(outer, (theta,), (q,))[1]
            bend: Params = jvp(inner_product, (theta,), (q,))[1]
            return {name: straight[name] - bend[name] for name in theta}

        parts = (at(self.theta, batch.rows), q, self._solved(batch))
        theta, along, x = map(self._params, parts)
        return self.layout.flatten(vmap(one)(theta, along, x, batch.data))

    def _instance_derivatives(
        self, theta: Params, q: Params, r: Params, x: Params, data: TaskTensors
    ) -> Tensor:
        """``[n + m]`` of one task."""

        def support(theta: Params) -> Tensor:
            return self.objective.losses(theta, data.support_x, data.support_y)

        def query(theta: Params) -> Tensor:
            return self.objective.losses(theta, data.query_x, data.query_y)

        def along(theta: Params) -> Tensor:
            slope: Tensor = jvp(support, (theta,), (x,))[1]
            return slope

        through = jvp(support, (theta,), (r,))[1] + jvp(along, (theta,), (q,))[1]
        direct = jvp(query, (theta,), (q,))[1]
        return torch.cat([-through / len(through), direct / len(direct)])

    def _inverse(self, batch: TaskBatch, vectors: Tensor) -> Tensor:
        return self.inverse.apply(batch, self.adapted(batch), vectors).to(self.theta)

    def _params(self, flat: Tensor) -> Params:
        return self.layout.unflatten(flat, self.params)
