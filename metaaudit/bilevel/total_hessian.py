"""The total Hessian ``H = D^2 F`` and its approximations, as operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.func import grad, vmap

from metaaudit.bilevel.adaptation import Adaptation
from metaaudit.bilevel.batch import Batching, TaskBatch
from metaaudit.bilevel.outer_curvature import (
    OuterCurvature,
    gauss_newton,
    instance_fisher,
    partial_hessian,
)
from metaaudit.errors import is_out_of_memory
from metaaudit.models import Params
from metaaudit.team import ALONE, Team

_BETWEEN: dict[str, OuterCurvature] = {
    "ggn": gauss_newton,
    "gamma": partial_hessian,
    "instance-fisher": instance_fisher,
}

FORMS = ("exact", "jacobian", *_BETWEEN)


@dataclass
class Room:
    """How many tasks memory holds at once, as far as is known.

    Attributes:
        most: No more than these; no bound is known without.
    """

    most: int | None = None

    def at_once(self, batching: Batching) -> int:
        """How many of a batch to compute."""
        return batching.size if self.most is None else min(self.most, batching.size)


@dataclass(frozen=True)
class TotalHessian:
    """``(1/N) sum_k`` of the tasks' curvature, and a shift.

    ``exact`` is ``D^2 L_k``, and ``jacobian`` its counterpart for learners that follow a field: the
    field's Jacobian, transposed, which is not symmetric. The others are ``J_k^T C_k J_k`` with
    ``J_k = d theta_k / d lambda``: ``ggn`` takes the Gauss-Newton matrix for ``C_k``, so that no
    derivative of the residual is left; ``instance-fisher`` the second moment of the query
    instances' gradients; ``gamma`` the Hessian in ``theta_k``, and a constant in place of the
    third-order terms (Theorem 5.1 of 2501.15963).

    Attributes:
        adaptation: The training tasks and their adaptation.
        form: Which of these.
        shift: Outer L2 weight plus damping.
        gamma: The constant of ``gamma``; 0 for the others.
        team: The processes that share the tasks of each product.
        room: How many of them memory was found to hold at once.
    """

    adaptation: Adaptation
    form: str = "exact"
    shift: float = 0.0
    gamma: float = 0.0
    team: Team = ALONE
    room: Room = field(default_factory=Room)

    @classmethod
    def of(cls, adaptation: Adaptation, form: str, team: Team = ALONE) -> TotalHessian:
        """The operator of a form, its constant computed, without shift."""
        gamma = mean_gradient_norm(adaptation) if form == "gamma" else 0.0
        return cls(adaptation, form, gamma=gamma, team=team)

    def shifted(self, shift: float) -> TotalHessian:
        """The same operator with another shift."""
        return replace(self, shift=shift)

    def over(self, rows: list[int]) -> TotalHessian:
        """The same operator over some of the tasks."""
        return replace(self, adaptation=self.adaptation.over(rows))

    def __call__(self, vectors: Tensor) -> Tensor:
        """Products ``[n_rhs, n_params]`` with the rows of ``vectors [n_rhs, n_params]``."""
        layout, params = self.adaptation.layout, self.adaptation.params
        # Tangents of norm 1 keep single precision away from its limits.
        norms = vectors.norm(dim=1, keepdim=True)
        rows = norms.squeeze(1).nonzero().squeeze(1).tolist()
        tangents = {row: layout.unflatten(vectors[row] / norms[row], params) for row in rows}
        total = self.team.summed(self._fitting(vectors, tangents))
        products: Tensor = total * norms / len(self.adaptation.task_set)
        return products + (self.shift + self.gamma) * vectors

    def _fitting(self, vectors: Tensor, tangents: dict[int, Params]) -> Tensor:
        """The sum over this process's tasks, with fewer at once where memory is short."""
        own = self._own
        while True:
            own = replace(own, batching=replace(own.batching, size=self.room.at_once(own.batching)))
            try:
                return self._sum(own, vectors, tangents)
            except (MemoryError, RuntimeError) as error:
                if own.batching.size == 1 or not is_out_of_memory(error):
                    raise
            self.room.most = own.batching.size // 2

    def _sum(self, own: Adaptation, vectors: Tensor, tangents: dict[int, Params]) -> Tensor:
        layout = own.layout
        total = torch.zeros_like(vectors, dtype=torch.float64)
        for batch in own.batches() if tangents else ():
            product = self._product(own, batch)
            # One tangent at a time, so that memory does not grow with their number.
            for row, tangent in tangents.items():
                total[row] += layout.flatten(product(tangent)).double()
        return total

    @cached_property
    def _own(self) -> Adaptation:
        """The tasks of this process."""
        if self.team.size == 1:
            return self.adaptation
        return self.adaptation.over([*self.team.share(range(len(self.adaptation.task_set)))])

    def _product(self, adaptation: Adaptation, batch: TaskBatch) -> Callable[[Params], Params]:
        """Takes a tangent to the sum over the batch of the tasks' curvature times it."""
        if self.form == "exact":
            return lambda tangent: adaptation.hessian_product(batch, tangent)
        if self.form == "jacobian":
            return lambda tangent: adaptation.transposed_jacobian_product(batch, tangent)
        between, linearised = _BETWEEN[self.form], adaptation.linearise(batch)

        def product(tangent: Params) -> Params:
            curved = vmap(lambda theta, q, data: between(adaptation.objective, theta, q, data))(
                linearised.theta, adaptation.push(batch, tangent), batch.data
            )
            return {name: p.sum(0) for name, p in linearised.pull(curved).items()}

        return product


def mean_gradient_norm(adaptation: Adaptation) -> float:
    """``Gamma = (1/N) sum_k ||d L_k / d theta_k||_1``, partial gradients (Theorem 5.1)."""
    total, slope = 0.0, vmap(grad(adaptation.objective.query_loss))
    for batch in adaptation.batches():
        gradient = slope(adaptation.adapted(batch), batch.data)
        total += sum(float(g.double().abs().sum()) for g in gradient.values())
    return total / len(adaptation.task_set)
