"""Every key of a configuration file, its type, default and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """Base of all sections: unknown keys and lax conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Conv4Config(Section):
    """Four blocks of 3x3 convolution, normalisation and ReLU, then a linear layer.

    Attributes:
        hidden: Channels of every block.
        in_channels: Channels of an input image.
        ways: Classes of a task.
        downsample: ``stride`` (stride-2 convolutions, then the mean over positions) or
            ``max_pool`` (2x2 max pooling, then all positions flattened).
        norm: ``batch`` uses the statistics of the batch at hand, always, as MAML does.
    """

    name: Literal["conv4"]
    hidden: PositiveInt = 32
    in_channels: PositiveInt = 1
    ways: PositiveInt = 5
    downsample: Literal["stride", "max_pool"] = "stride"
    norm: Literal["batch", "group", "none"] = "batch"


class MlpConfig(Section):
    """Fully connected layers with ReLU between them.

    Attributes:
        hidden: Width of each hidden layer.
        ways: Classes of a task.
    """

    name: Literal["mlp"]
    hidden: list[PositiveInt] = [64, 64]
    ways: PositiveInt = 5


class FactoryConfig(Section):
    """One's own model.

    Attributes:
        factory: ``module:callable`` that returns a ``torch.nn.Module``.
        path: Folder to import the module from, if it is not installed.
        args: Keyword arguments of the callable.
    """

    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    path: Path | None = None
    args: dict[str, Any] = {}


def _model_kind(value: Any) -> str | None:
    """Tag of the union's member that a ``model`` section means; ``None`` if it names none."""
    if isinstance(value, FactoryConfig) or (isinstance(value, dict) and "factory" in value):
        return "factory"
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if isinstance(name, str) else None


ModelConfig = Annotated[
    Annotated[Conv4Config, Tag("conv4")]
    | Annotated[MlpConfig, Tag("mlp")]
    | Annotated[FactoryConfig, Tag("factory")],
    Discriminator(_model_kind),
]


class LearnerConfig(Section):
    """How a task is adapted to.

    Attributes:
        name: ``maml`` differentiates through the inner steps; ``fomaml`` does not (training only);
            ``imaml`` solves an inner problem that pulls to the meta-parameters.
        inner_lr: Inner learning rate.
        steps: Number of inner SGD steps; for ``imaml`` a bound on them.
        proximity: Strength of the pull, ``rho``; for ``imaml`` alone.
        tolerance: Norm of the inner problem's gradient, relative to the first, at which it is
            solved; for ``imaml`` alone.
    """

    name: Literal["maml", "fomaml", "imaml"] = "maml"
    inner_lr: PositiveFloat
    steps: PositiveInt
    proximity: PositiveFloat | None = None
    tolerance: PositiveFloat = 1e-2

    @model_validator(mode="after")
    def _proximal_keys_fit(self) -> LearnerConfig:
        keys = ("proximity", "tolerance")
        changed = [k for k in keys if getattr(self, k) != type(self).model_fields[k].default]
        if self.name != "imaml" and changed:
            raise ValueError(f"{changed[0]} is a key of learner imaml, not of {self.name}")
        if self.name == "imaml" and self.proximity is None:
            raise ValueError("imaml needs proximity, the strength of its pull; try proximity: 1.0")
        return self


class EpisodeImageConfig(Section):
    """How stored pixels become inputs: uint8 is divided by ``scale``, floats are left alone."""

    scale: PositiveFloat = 255.0
    invert: bool = False


class ImageConfig(EpisodeImageConfig):
    """Images that are read from files: resized to ``size`` x ``size``."""

    size: PositiveInt = 28


class EpisodeConfig(Section):
    """Size of a sampled task."""

    ways: Annotated[int, Field(ge=2)] = 5
    shots: PositiveInt = 5
    queries: PositiveInt = 5


class TrainSplitConfig(Section):
    """Training tasks: how many, from how many of the classes, and the seed of both choices."""

    tasks: PositiveInt
    classes: PositiveInt
    seed: Seed = 0


class EvalSplitConfig(Section):
    """Evaluation tasks, from the classes that the training tasks leave."""

    tasks: PositiveInt
    seed: Seed = 1


class EpisodesConfig(Section):
    """Ready-made tasks in ``.npz`` or HDF5 files."""

    format: Literal["episodes"]
    train: Path
    eval: Path
    image: EpisodeImageConfig = EpisodeImageConfig()


class OmniglotConfig(Section):
    """Tasks sampled from Omniglot's folders or zips."""

    format: Literal["omniglot"]
    root: Path
    image: ImageConfig = ImageConfig(invert=True)
    episode: EpisodeConfig = EpisodeConfig()
    train: TrainSplitConfig
    eval: EvalSplitConfig


TasksConfig = Annotated[EpisodesConfig | OmniglotConfig, Field(discriminator="format")]


class TrainingConfig(Section):
    """The reference meta-trainer.

    Attributes:
        epochs: Passes over the training tasks.
        batch: Tasks a meta-update.
        lr: Learning rate of Adam.
        schedule: ``cosine`` decays the rate to zero over all epochs.
        weight_decay: L2 weight ``delta`` of the outer objective; the influence uses it too.
        seed: Seed of the initial weights and the order of tasks.
    """

    epochs: PositiveInt = 40
    batch: PositiveInt = 25
    lr: PositiveFloat = 0.003
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: NonNegativeFloat = 0.0
    seed: Seed = 0


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
        curvature: Form of the total Hessian.
        damping: Added to the Hessian beside ``training.weight_decay``. ``auto`` is a tenth of
            the mean eigenvalue of the task-Fisher in the span of the task gradients, for ``ekfac``
            a tenth of each layer's mean eigenvalue; where the Hessian turns out to be indefinite
            it is raised to what its smallest Ritz value asks for.
        solver: ``auto`` is the direct one of ``task-fisher`` and ``ekfac``, and CG for the rest.
        preconditioner: Of CG: ``ekfac``, the total Hessian in the Kronecker eigenbasis, or none.
        targets: ``each`` solves for every evaluation task, ``mean`` for their mean alone.
        tolerance: Relative residual at which an iterative solver stops.
        max_iterations: Bound on the iterations of a solver; the terms of ``neumann``.
        fdr: False-discovery rate of the ``harmful`` flag.
        self_influence: Whether to score how much each instance counts for its own loss, by EK-FAC.
    """

    method: Literal["task-if", "dot"] = "task-if"
    derivative: Literal["unrolled", "implicit"] = "unrolled"
    inner: InnerConfig = InnerConfig()
    fisher: Fisher = "true"
    curvature: Literal["task-fisher", "instance-fisher", "ekfac", "ggn", "gamma", "exact"] = (
        "task-fisher"
    )
    damping: Literal["auto"] | NonNegativeFloat = "auto"
    solver: Literal["auto", "dual", "ekfac", "cg", "neumann", "dense"] = "auto"
    preconditioner: Literal["ekfac", "none"] = "none"
    targets: Literal["each", "mean"] = "each"
    tolerance: PositiveFloat = 1e-4
    max_iterations: PositiveInt = 100
    fdr: Annotated[float, Field(gt=0, lt=1)] = 0.05
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


class MislabelConfig(Section):
    """Cross-fitted mislabel scores.

    Attributes:
        folds: Parts of a task (support and query pooled), each held out once.
        repeats: Different partitions, whose probabilities are averaged.
        seed: Seed of the partitions.
    """

    folds: Annotated[int, Field(ge=2)] = 10
    repeats: PositiveInt = 1
    seed: Seed = 0


class ComputeConfig(Section):
    """Where and how the numbers are computed.

    Attributes:
        device: ``auto`` takes CUDA where there is one.
        dtype: Precision of models and gradients; solves are in float64.
        task_batch: Tasks computed at once. Results do not depend on it.
        threads: Intra-op threads; one is fastest for the small tensors of few-shot tasks.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    task_batch: PositiveInt = 10
    threads: PositiveInt = 1


class Config(Section):
    """A whole configuration file."""

    model: ModelConfig
    learner: LearnerConfig
    checkpoint: Path
    tasks: TasksConfig
    training: TrainingConfig = TrainingConfig()
    influence: InfluenceConfig = InfluenceConfig()
    mislabel: MislabelConfig = MislabelConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _imaml_has_its_own_proximity(self) -> Config:
        if self.learner.name == "imaml" and self.influence.inner.proximity != "auto":
            raise ValueError(
                "influence.inner.proximity is that of the learner imaml; change learner.proximity"
            )
        return self


TAGGED: dict[str, dict[str, type[Section]]] = {
    "model": {"conv4": Conv4Config, "mlp": MlpConfig, "factory": FactoryConfig},
    "tasks": {"episodes": EpisodesConfig, "omniglot": OmniglotConfig},
}
"""The sections of ``Config`` that come in several kinds, by the name that pydantic gives each."""
