"""The objects that a configuration names: tasks, network and bilevel objective."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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
from metaaudit.inputs.task_set import TaskSet
from metaaudit.learners import build_learner
from metaaudit.models import Model, Params
from metaaudit.training.planting import Planted


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

    def take_buffers(self, buffers: Params) -> None:
        """Brings the buffers of a checkpoint into the model."""
        own = dict(self.model.module.named_buffers())
        for name, values in buffers.items():
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

    def scored_layers(self) -> Network | None:
        """The model's layers where any score is by EK-FAC.

        Raises:
            ModelError: EK-FAC does not cover the model.
        """
        return self.layers() if self.config.scores_by_ekfac else None

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


def build_objective(model: Model, learner: LearnerConfig, shape: tuple[int, ...]) -> Objective:
    """The bilevel objective of a network and a learner, for inputs of a shape."""
    return Objective(model, build_learner(learner, model, shape))
