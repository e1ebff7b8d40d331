"""The ``influence`` section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from metaaudit.config.mts import MtsConfig
from metaaudit.config.section import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
)


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
    "sampled-fisher": ("auto", "dual"),
    "task-fisher": ("auto", "dual"),
    "ekfac": ("auto", "ekfac"),
    "jacobian": ("auto", "gmres", "dense"),
    **dict.fromkeys(
        ("exact", "ggn", "gamma", "instance-fisher"), ("auto", "cg", "neumann", "dense")
    ),
}
"""The solvers of each curvature."""


USED_BY = {
    "curvature": ("task-if",),
    "preconditioner": ("task-if", "direct-if"),
    "solver": ("task-if", "direct-if"),
    "damping": ("task-if", "direct-if", "ekfac-if", "trak"),
    "tolerance": ("task-if", "direct-if"),
    "max_iterations": ("task-if", "direct-if"),
    "trak": ("trak",),
    "mts": ("mts",),
    "seed": ("task-if", "trak", "mts", "random"),
    "probes": ("task-if",),
}
"""The methods that read a key; those that read one which is not here are all."""


class TrakConfig(Section):
    """The method ``trak``.

    Attributes:
        dimension: Of the random projections of the gradients.
    """

    dimension: PositiveInt = 512


class InfluenceConfig(Section):
    """Influence of training items on the evaluation loss.

    Attributes:
        method: ``task-if`` solves with the total Hessian; ``dot`` is that without it. ``direct-if``
            and ``ekfac-if`` leave out the derivative of the adaptation, and solve with the exact
            Hessian or EK-FAC at the adapted parameters. ``gradient-ascent`` unlearns a task by one
            step; ``trak`` linearises the model in projected gradients; ``mts`` learns weights while
            a learner is trained; ``tracin`` adds up products of gradients. ``loss``, ``grad-norm``
            and ``random`` look at no evaluation task.
        derivative: ``unrolled`` differentiates through the inner steps exactly; ``implicit`` takes
            the adapted parameters to solve a proximal inner problem.
        inner: The inner Hessian of ``implicit``.
        fisher: Fisher matrix of every EK-FAC and of ``sampled-fisher``: the expectation over the
            model's own classes, or ``empirical``, at the given labels.
        curvature: Form of the total Hessian: ``sampled-fisher``, its Gauss-Newton part from a few
            random gradients a task; ``ggn``, that part in full; ``task-fisher`` and
            ``instance-fisher``, second moments of the gradients of tasks and of query instances;
            ``ekfac``; ``gamma``, with a constant for the third derivatives; ``exact``. ``jacobian``
            is that of the field that ``fomaml`` and ``reptile`` follow: their default, and for them
            alone.
        probes: Random gradients a task, for ``sampled-fisher``: ``auto`` is 4, and fewer where all
            tasks together would have more than 8,192, or more than 1 GiB.
        damping: Added to the Hessian beside ``training.weight_decay``, for ``trak`` to its kernel.
            ``auto`` is a tenth of the mean eigenvalue of the sampled Fisher (or task-Fisher, or
            kernel) in a span as large as that of the task gradients, for EK-FAC a tenth of each
            layer's mean eigenvalue; where the Hessian turns out to be indefinite it is raised to
            what its smallest Ritz value asks for.
        solver: ``auto`` is the direct one of ``sampled-fisher``, ``task-fisher`` and ``ekfac``,
            GMRES for ``jacobian`` and CG for the rest, ``direct-if`` too.
        preconditioner: Of CG: ``ekfac``, the total Hessian in the Kronecker eigenbasis, or none.
        targets: ``each`` solves for every evaluation task, ``mean`` for their mean alone.
        tolerance: Relative residual at which an iterative solver stops.
        max_iterations: Bound on the iterations of a solver; the terms of ``neumann``.
        fdr: False-discovery rate of the ``harmful`` flag.
        effect: Least robust z-score of a harmful task, and of an ``outlier`` by its loss.
        self_influence: Whether to score how much each instance counts for its own loss, by EK-FAC.
        trak: What ``trak`` alone has.
        mts: What ``mts`` alone has.
        seed: Of the signs of ``probes``, the projections of ``trak``, the weights and orders of
            ``mts``, and ``random``.
    """

    method: Literal[
        "task-if",
        "dot",
        "direct-if",
        "ekfac-if",
        "gradient-ascent",
        "trak",
        "mts",
        "tracin",
        "loss",
        "grad-norm",
        "random",
    ] = "task-if"
    derivative: Literal["unrolled", "implicit"] = "unrolled"
    inner: InnerConfig = InnerConfig()
    fisher: Fisher = "true"
    curvature: Literal[
        "sampled-fisher",
        "task-fisher",
        "instance-fisher",
        "ekfac",
        "ggn",
        "gamma",
        "exact",
        "jacobian",
    ] = "sampled-fisher"
    probes: Literal["auto"] | PositiveInt = "auto"
    damping: Literal["auto"] | NonNegativeFloat = "auto"
    solver: Literal["auto", "dual", "ekfac", "cg", "neumann", "gmres", "dense"] = "auto"
    preconditioner: Literal["ekfac", "none"] = "none"
    targets: Literal["each", "mean"] = "each"
    tolerance: PositiveFloat = 1e-4
    max_iterations: PositiveInt = 100
    fdr: Annotated[float, Field(gt=0, le=0.25)] = 0.05
    effect: NonNegativeFloat = 4.0
    self_influence: bool = False
    trak: TrakConfig = TrakConfig()
    mts: MtsConfig = MtsConfig()
    seed: Seed = 0

    @model_validator(mode="after")
    def _choices_fit(self) -> InfluenceConfig:
        if self.solves and self.solver not in self.solvers:
            by_curvature = self.method == "task-if"
            what = f"curvature '{self.curvature}'" if by_curvature else f"method '{self.method}'"
            raise ValueError(
                f"solver '{self.solver}' does not solve {what}; "
                f"expected one of {', '.join(self.solvers)}"
            )
        if self.preconditioner == "ekfac" and not self.by_cg:
            raise ValueError("preconditioner 'ekfac' is for solver 'cg'; remove it")
        if self.probes != "auto" and self.curvature != "sampled-fisher":
            raise ValueError(
                f"probes is for curvature 'sampled-fisher', not for '{self.curvature}'; remove it"
            )
        if (
            self.derivative == "unrolled"
            and "inner" in self.model_fields_set
            and (self.inner != InnerConfig())
        ):
            raise ValueError("inner is for derivative 'implicit'; set it, or remove inner")
        return self

    @model_validator(mode="after")
    def _method_reads_what_is_set(self) -> InfluenceConfig:
        for key, methods in USED_BY.items():
            if self.method in methods or getattr(self, key) == _default(key):
                continue
            if key == "curvature" and self.curvature == "jacobian":  # the default of some learners
                continue
            if key in ("tolerance", "max_iterations") and self._inner_by_cg:
                continue
            raise ValueError(
                f"{key} is for method {' and '.join(methods)}, not for {self.method}; remove it"
            )
        return self

    @property
    def solves(self) -> bool:
        """Whether the method has a choice of solvers."""
        return self.method in USED_BY["solver"]

    @property
    def by_dual(self) -> bool:
        """Whether the total Hessian has few enough rows for a direct solve."""
        return "dual" in SOLVERS[self.curvature]

    @property
    def by_cg(self) -> bool:
        """Whether CG solves for the adjoint, at least as a fall-back."""
        return self.solves and (
            self.solver in ("cg", "neumann") or (self.solver == "auto" and "cg" in self.solvers)
        )

    @property
    def solvers(self) -> tuple[str, ...]:
        """The solvers that the curvature allows; ``direct-if`` has an exact Hessian."""
        return SOLVERS["exact" if self.method == "direct-if" else self.curvature]

    @property
    def uses_ekfac(self) -> bool:
        """Whether anything is by EK-FAC, which not every network allows."""
        inner = self.derivative == "implicit" and self.inner.inverse == "ekfac"
        return inner or self.outer_ekfac or self.pooled_ekfac or self.self_influence

    @property
    def outer_ekfac(self) -> bool:
        """Whether the total Hessian is taken in the Kronecker eigenbasis."""
        chosen = self.curvature == "ekfac" or self.preconditioner == "ekfac"
        return self.method == "task-if" and chosen

    @property
    def sampled_fisher(self) -> bool:
        """Whether the total Hessian is taken from random gradients."""
        return self.method == "task-if" and self.curvature == "sampled-fisher"

    @property
    def pooled_ekfac(self) -> bool:
        """Whether the Hessian at the adapted parameters is taken by EK-FAC."""
        preconditions = self.method == "direct-if" and self.preconditioner == "ekfac"
        return self.method == "ekfac-if" or preconditions

    @property
    def _inner_by_cg(self) -> bool:
        return self.derivative == "implicit" and self.inner.inverse == "cg"


def _default(key: str) -> Any:
    return InfluenceConfig.model_fields[key].default
