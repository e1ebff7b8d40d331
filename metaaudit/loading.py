"""From a configuration to everything that training and scoring start from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from metaaudit.bilevel import (
    Adaptation,
    Batching,
    FirstOrder,
    InnerMethod,
    InnerProblem,
    Objective,
    Reptile,
    Unrolled,
)
from metaaudit.config import Config
from metaaudit.config.influence import InfluenceConfig, InnerConfig
from metaaudit.config.learner import (
    FIELD_LEARNERS,
    STEPPING_LEARNERS,
    ImamlConfig,
    LearnerConfig,
    MamlConfig,
)
from metaaudit.curvature import Network
from metaaudit.errors import ConfigError, TaskSetError
from metaaudit.inputs.checkpoints import Target, fit_weights, read_checkpoint
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks
from metaaudit.learners import build_learner
from metaaudit.models import Model, Params, build_model
from metaaudit.training.planting import Planted, planted
from metaaudit.training.recipe import disagreements


@dataclass(frozen=True)
class Problem:
    """The objects that a configuration names.

    Attributes:
        config: The configuration.
        train: Training tasks.
        evaluation: Evaluation tasks.
        model: The network, with weights drawn from ``training.seed``.
        objective: The bilevel objective of network and learner.
        batching: How tasks become tensors.
        planted: Where the training labels were changed on purpose, if they were.
    """

    config: Config
    train: TaskSet
    evaluation: TaskSet
    model: Model
    objective: Objective
    batching: Batching
    planted: Planted | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line that tells of labels that were changed on purpose."""
        if self.planted is None:
            return ()
        wrong = self.planted.wrong
        return (
            f"{int(wrong.sum())} of the {len(wrong)} training labels were changed on purpose, as "
            "`plant` asks for",
        )

    @cached_property
    def template(self) -> Params:
        """Initial meta-parameters, named and shaped as the learner has them."""
        return self.objective.learner.meta_parameters(self.model.initial())

    @property
    def follows_field(self) -> bool:
        """Whether the learner descends along a field that is no gradient."""
        return self.config.learner.name in FIELD_LEARNERS

    @property
    def rho(self) -> float:
        """Strength of the pull to the meta-parameters in the implicit derivative."""
        learner, asked = self.config.learner, self.config.influence.inner.proximity
        if isinstance(learner, ImamlConfig):
            return learner.proximity
        if asked != "auto":
            return asked
        assert isinstance(learner, MamlConfig)  # the schema sees to it
        return 1 / (learner.inner_lr * learner.steps)

    @property
    def steps(self) -> int:
        """Inner steps of the learner; 0 where it has none of a fixed number."""
        learner = self.config.learner
        return int(getattr(learner, "steps")) if learner.name in STEPPING_LEARNERS else 0  # noqa: B009

    def with_steps(self, steps: int | None) -> Objective:
        """The objective with another number of inner steps, for a learner that takes steps."""
        if steps is None or steps == self.steps:
            return self.objective
        return build_objective(
            self.model,
            self.config.learner.model_copy(update={"steps": steps}),
            self.train.pool.input_shape,
        )

    def take_buffers(self, weights: Weights) -> None:
        """Brings the buffers of a checkpoint into the model."""
        own = dict(self.model.module.named_buffers())
        for name, values in weights.buffers.items():
            own[name].copy_(values)

    def unrolled(self, params: Params, task_set: TaskSet) -> Adaptation:
        """Tasks at some meta-parameters, differentiated through the learner's own steps."""
        return Unrolled(self.objective, params, task_set, self.batching)

    def as_trained(self, params: Params, task_set: TaskSet) -> Adaptation:
        """Training tasks at some meta-parameters, with what the learner descends along."""
        learner = self.config.learner
        parts = (self.objective, params, task_set, self.batching)
        if isinstance(learner, MamlConfig) and learner.name == "reptile":
            return Reptile(*parts, learner.inner_lr * learner.steps)
        if learner.name == "fomaml":
            return FirstOrder(*parts)
        return self.as_evaluated(params, task_set)

    def as_evaluated(self, params: Params, task_set: TaskSet) -> Adaptation:
        """Evaluation tasks at some meta-parameters, differentiated as training would."""
        learner = self.config.learner
        if not isinstance(learner, ImamlConfig):
            return self.unrolled(params, task_set)
        method = InnerMethod(
            InfluenceConfig(
                derivative="implicit",
                inner=InnerConfig(inverse="cg"),
                tolerance=learner.tolerance,
                max_iterations=learner.steps,
            )
        )
        return method.implicit(self.inner_problem(params, task_set, learner.proximity))

    def inner_problem(self, params: Params, task_set: TaskSet, rho: float) -> InnerProblem:
        """The proximal inner problem of every task of a set."""
        return InnerProblem(self.objective, params, task_set, self.batching, rho)

    def influence_layers(self) -> Network | None:
        """The model's layers where influence is by EK-FAC.

        Raises:
            ModelError: EK-FAC does not cover the model.
        """
        return self.layers() if self.config.influence.uses_ekfac else None

    def layers(self) -> Network:
        """The model's layers, for EK-FAC.

        Raises:
            ModelError: EK-FAC does not cover the model.
        """
        shape = self.train.pool.input_shape
        device, dtype = self.batching.device, self.batching.dtype
        return Network.of(self.model.module, torch.zeros(2, *shape, device=device, dtype=dtype))


@dataclass(frozen=True)
class Weights:
    """Meta-parameters as read from a checkpoint.

    Attributes:
        path: The file.
        params: The weights, on the device and in the precision of the problem.
        sha256: Of the file.
        buffers: What the model takes from the file beside them, such as running statistics.
        mapping: Lines that say which tensor of the file is which parameter, a summary first.
        warnings: One line for each way in which the checkpoint disagrees with the configuration.
        metadata: What else the file says, such as the learning rate.
    """

    path: Path
    params: Params
    sha256: str
    mapping: tuple[str, ...]
    buffers: Params
    warnings: tuple[str, ...]
    metadata: dict[str, str] = field(default_factory=dict)


def prepare(config: Config) -> Problem:
    """Loads the tasks, plants what is to be planted, and builds model and learner.

    Raises:
        InputError: Tasks or model cannot be used, or do not fit together.
        ConfigError: The device is not there.
    """
    _device(config.compute.device)  # before tasks are loaded, which may take long
    train, evaluation = load_tasks(config.tasks)
    if not config.plant.anything:
        return assemble(config, train, evaluation)
    changed = planted(train, config.plant)
    return replace(assemble(config, changed.task_set, evaluation), planted=changed)


def assemble(config: Config, train: TaskSet, evaluation: TaskSet) -> Problem:
    """Builds model and learner for tasks that are at hand, in which nothing is planted here.

    Raises:
        InputError: The model cannot be used, or does not fit the tasks.
        ConfigError: The device is not there.
    """
    torch.set_num_threads(config.compute.threads)
    # The same inputs give the same bytes, on a GPU too, in the precision that was asked for.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    device = _device(config.compute.device)
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.compute.dtype]
    if train.pool.input_shape != evaluation.pool.input_shape:
        raise TaskSetError(
            "tasks",
            f"training inputs have shape {list(train.pool.input_shape)}, evaluation inputs "
            f"{list(evaluation.pool.input_shape)}",
            "one shape",
        )
    model = build_model(
        config.model,
        input_shape=train.pool.input_shape,
        ways=max(train.ways, evaluation.ways),
        seed=config.training.seed,
    ).to(device, dtype)
    objective = build_objective(model, config.learner, train.pool.input_shape)
    batching = Batching(config.compute.task_batch, device, dtype)
    return Problem(config, train, evaluation, model, objective, batching)


def build_objective(model: Model, learner: LearnerConfig, shape: tuple[int, ...]) -> Objective:
    """The bilevel objective of a network and a learner, for inputs of a shape."""
    return Objective(model, build_learner(learner, model, shape))


def load_weights(problem: Problem, path: Path | None = None) -> Weights:
    """Reads a checkpoint into meta-parameters, and its buffers into the model.

    Args:
        problem: What it is to fit.
        path: One of the configured checkpoints; the first one by default.

    Raises:
        CheckpointError: It cannot be read, or its tensors do not fit the model.
        ConfigError: ``rename`` names what is not there.
    """
    config = problem.config
    path = path or config.checkpoints[0]
    checkpoint = read_checkpoint(path)
    fitted = fit_weights(
        checkpoint.weights,
        _target(problem),
        path,
        rename=config.rename,
        ordered=path.suffix != ".safetensors",  # which sorts tensors by name
    )
    weights = Weights(
        path=path,
        params={name: p.to(problem.template[name]) for name, p in fitted.params.items()},
        sha256=checkpoint.sha256,
        mapping=fitted.mapping,
        buffers=fitted.buffers,
        warnings=(*fitted.warnings, *disagreements(checkpoint.metadata, config)),
        metadata=checkpoint.metadata,
    )
    problem.take_buffers(weights)
    return weights


def _target(problem: Problem) -> Target:
    """What the checkpoint is to hold, and every name that the model has for it."""
    module = problem.model.module
    first: dict[int, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known != name:
            aliases[known] = (*aliases.get(known, ()), name)
    return Target(
        template=problem.template,
        network=problem.model.initial(),
        buffers=dict(module.named_buffers()),
        required=problem.model.running,
        optional=problem.objective.learner.own,
        aliases=aliases,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "compute.device", "is cuda but torch sees none", "cpu or auto", "use --device auto"
        )
    return torch.device(name)
