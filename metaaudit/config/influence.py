"""The ``influence`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from metaaudit.config.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section


class InnerConfig(Section):
    """The inner Hessian, for the implicit derivative.

    Attributes:
        inverse: ``ekfac`` (cached factors), ``ggn`` (exact inverse of the Gauss-Newton matrix),
            ``cg`` (exact Hessian, solved anew each time) or ``dense`` (exact, small networks).
        basis: For ``ekfac``: ``task``, factors of its own for every task, or ``shared``, one
            eigenbasis for all and eigenvalues task by task.
        proximity: ``rho``, which shifts the inner Hessian. ``auto`` is that of the learner
            ``imaml``, and 1 / (inner_lr * steps) for ``maml``, an approximation.
    """

    inverse: Literal["ekfac", "ggn", "cg", "dense"] = "ekfac"
    basis: Literal["task", "shared"] = "task"
    proximity: Literal["auto"] | PositiveFloat = "auto"

    @model_validator(mode="after")
    def _basis_is_of_ekfac(self) -> InnerConfig:
        if self.basis == "shared" and self.inverse != "ekfac":
            raise ValueError(f"basis 'shared' is for inverse 'ekfac', not '{self.inverse}'")
        return self


Fisher = Annotated[
    Literal["true", "empirical"],
    # YAML reads a bare true as a boolean.
    BeforeValidator(lambda value: "true" if value is True else value),
]

SOLVERS = {
    "task-fisher": ("auto", "dual"),
    "ekfac": ("auto", "ekfac"),
    "jacobian": ("auto", "gmres", "dense"),
    **dict.fromkeys(
        ("exact", "ggn", "gamma", "instance-fisher"), ("auto", "cg", "neumann", "dense")
    ),
}
"""The solvers of each curvature."""


class InfluenceConfig(Section):
    """Influence of training items on the evaluation loss.

    Attributes:
        method: ``task-if`` solves with the total Hessian; ``dot`` is the baseline without it.
        derivative: ``unrolled`` differentiates through the inner steps exactly; ``implicit`` takes
            the adapted parameters to solve a proximal inner problem.
        inner: The inner Hessian of ``implicit``.
        fisher: Fisher matrix of every EK-FAC: the exact expectation over the model's own classes,
            or ``empirical``, at the given labels.
        curvature: Form of the total Hessian. ``jacobian`` is that of the field that ``fomaml`` and
            ``reptile`` follow: their default, and for them alone.
        damping: Added to the Hessian beside ``training.weight_decay``. ``auto`` is a tenth of
            the mean eigenvalue of the task-Fisher in the span of the task gradients, for ``ekfac``
            a tenth of each layer's mean eigenvalue; where the Hessian turns out to be indefinite
            it is raised to what its smallest Ritz value asks for.
        solver: ``auto`` is the direct one of ``task-fisher`` and ``ekfac``, GMRES for ``jacobian``
            and CG for the rest.
        preconditioner: Of CG: ``ekfac``, the total Hessian in the Kronecker eigenbasis, or none.
        targets: ``each`` solves for every evaluation task, ``mean`` for their mean alone.
        tolerance: Relative residual at which an iterative solver stops.
        max_iterations: Bound on the iterations of a solver; the terms of ``neumann``.
        fdr: False-discovery rate of the ``harmful`` flag.
        effect: Least robust z-score of a harmful task, and of an ``outlier`` by its loss.
        self_influence: Whether to score how much each instance counts for its own loss, by EK-FAC.
    """

    method: Literal["task-if", "dot"] = "task-if"
    derivative: Literal["unrolled", "implicit"] = "unrolled"
    inner: InnerConfig = InnerConfig()
    fisher: Fisher = "true"
    curvature: Literal[
        "task-fisher", "instance-fisher", "ekfac", "ggn", "gamma", "exact", "jacobian"
    ] = "task-fisher"
    damping: Literal["auto"] | NonNegativeFloat = "auto"
    solver: Literal["auto", "dual", "ekfac", "cg", "neumann", "gmres", "dense"] = "auto"
    preconditioner: Literal["ekfac", "none"] = "none"
    targets: Literal["each", "mean"] = "each"
    tolerance: PositiveFloat = 1e-4
    max_iterations: PositiveInt = 100
    fdr: Annotated[float, Field(gt=0, le=0.25)] = 0.05
    effect: NonNegativeFloat = 4.0
    self_influence: bool = False

    @model_validator(mode="after")
    def _choices_fit(self) -> InfluenceConfig:
        allowed = SOLVERS[self.curvature]
        if self.solver not in allowed:
            raise ValueError(
                f"solver '{self.solver}' does not solve curvature '{self.curvature}'; "
                f"expected one of {', '.join(allowed)}"
            )
        if self.preconditioner == "ekfac" and not self.by_cg:
            raise ValueError("preconditioner 'ekfac' is for solver 'cg'; remove it")
        if (
            self.derivative == "unrolled"
            and "inner" in self.model_fields_set
            and (self.inner != InnerConfig())
        ):
            raise ValueError("inner is for derivative 'implicit'; set it, or remove inner")
        return self

    @property
    def by_cg(self) -> bool:
        """Whether CG solves for the adjoint, at least as a fall-back."""
        return self.method == "task-if" and (
            self.solver in ("cg", "neumann") or (self.solver == "auto" and "cg" in self.solvers)
        )

    @property
    def solvers(self) -> tuple[str, ...]:
        """The solvers that the curvature allows."""
        return SOLVERS[self.curvature]

    @property
    def uses_ekfac(self) -> bool:
        """Whether anything is by EK-FAC, which not every network allows."""
        inner = self.derivative == "implicit" and self.inner.inverse == "ekfac"
        return inner or self.outer_ekfac or self.self_influence

    @property
    def outer_ekfac(self) -> bool:
        """Whether the total Hessian is taken in the Kronecker eigenbasis."""
        solved = self.method == "task-if" and self.curvature == "ekfac"
        return solved or self.preconditioner == "ekfac"
