"""Tasks as if adaptation did not depend on the meta-parameters: ``d theta_k / d lambda := I``.

What is then left of every total derivative is the partial one at the adapted parameters::

    D L_k   := d_theta L_k(theta_k)              D^2 L_k := d^2_theta L_k(theta_k)
    d/d v_j := (1/m) grad loss(z~_j; theta_k)    d/d w_i := (1/n) grad loss(z_i; theta_k)

A support instance acts on nothing but ``theta_k`` then; it is taken to act as a query would.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.func import jvp, vmap

from metaaudit.bilevel import (
    Adaptation,
    Linearised,
    TaskBatch,
    TaskGradients,
    TaskTensors,
    total_gradients,
)
from metaaudit.bilevel.inner.base import at
from metaaudit.bilevel.outer_curvature import partial_hessian
from metaaudit.finite import check_finite, check_gradients
from metaaudit.methods.base import Given
from metaaudit.models import Params
from metaaudit.stages import Stages


@dataclass(frozen=True)
class Partial(Adaptation):
    """The network at the adapted parameters of every task; ``params`` only says how they look.

    Attributes:
        theta: ``[n_tasks, n_params]``, adapted parameters.
    """

    theta: Tensor

    @classmethod
    def of(cls, adaptation: Adaptation, names: Iterable[str]) -> Partial:
        """Adapts to every task.

        Args:
            adaptation: The tasks and their adaptation.
            names: The network's parameters, in the order that they are to have.
        """
        rows, parts, like = [], [], adaptation.params
        for batch in adaptation.batches():
            adapted = adaptation.adapted(batch)
            like = {name: adapted[name][0] for name in names}
            parts.append(torch.cat([adapted[name].flatten(1) for name in like], dim=1))
            rows += batch.rows.tolist()
        theta = torch.cat(parts)[torch.tensor(rows).argsort().to(parts[0].device)]
        given = (adaptation.objective, like, adaptation.task_set, adaptation.batching)
        return cls(*given, theta)

    def over(self, rows: list[int]) -> Self:
        """See ``Adaptation.over``."""
        return replace(super().over(rows), theta=self.theta[rows])

    def adapted(self, batch: TaskBatch) -> Params:
        """See ``Adaptation.adapted``."""
        return self.layout.unflatten(at(self.theta, batch.rows), self.params)

    def linearise(self, batch: TaskBatch) -> Linearised:
        """See ``Adaptation.linearise``."""
        return Linearised(self.adapted(batch), lambda cotangents: cotangents)

    def push(self, batch: TaskBatch, tangent: Params) -> Params:
        """See ``Adaptation.push``."""
        return {name: p.expand(len(batch.rows), *p.shape) for name, p in tangent.items()}

    def hessian_product(self, batch: TaskBatch, tangent: Params) -> Params:
        """See ``Adaptation.hessian_product``."""
        products: Params = vmap(
            lambda theta, data: partial_hessian(self.objective, theta, tangent, data)
        )(self.adapted(batch), batch.data)
        return {name: p.sum(0) for name, p in products.items()}

    def weight_derivatives(self, batch: TaskBatch, tangent: Params) -> Tensor:
        """See ``Adaptation.weight_derivatives``."""

        def one(theta: Params, data: TaskTensors) -> Tensor:
            slopes: list[Tensor] = [
                jvp(lambda theta: self.objective.losses(theta, x, y), (theta,), (tangent,))[1]  # noqa: B023
                for x, y in data.sets
            ]
            return torch.cat([slope / len(slope) for slope in slopes])

        derivatives: Tensor = vmap(one)(self.adapted(batch), batch.data)
        return derivatives


def partial(given: Given) -> Given:
    """The same checkpoint and tasks with partial gradients in place of total ones."""
    train, gradients = partial_gradients(given.stages, given.train)
    held_out, target_gradients = partial_gradients(given.stages, given.held_out)
    return replace(
        given,
        train=train,
        gradients=gradients,
        held_out=held_out,
        target_gradients=target_gradients,
    )


def partial_gradients(stages: Stages, adaptation: Adaptation) -> tuple[Partial, TaskGradients]:
    """Adapts to every task, and differentiates there.

    Args:
        stages: Of the checkpoint.
        adaptation: The tasks and their adaptation.

    Raises:
        IncompleteError: A task has losses or gradients that are not finite.
    """
    there = Partial.of(adaptation, list(stages.problem.model.initial()))
    stage = stages.named("partial gradients", there.task_set)
    with stages.stage(stage, len(there.task_set)) as advance:
        found = total_gradients(there, advance)
    check_finite(stage, there.task_set, found.losses)
    check_gradients(stage, there.task_set, found.gradients, there.layout)
    return there, found
