"""What a scoring method is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from metaaudit.bilevel import Adaptation, Implicit, TaskGradients
from metaaudit.stages import Stages

Floats = npt.NDArray[np.float64]


def differentiated(stages: Stages) -> tuple[Adaptation, TaskGradients]:
    """The training tasks and their total gradients, computed or from the cache."""
    train = stages.training_adaptation()
    gradients = stages.gradients(train)
    if isinstance(train, Implicit):
        train = train.with_gradients(stages.tensor(gradients.gradients))
    return train, gradients


@dataclass(frozen=True)
class Given:
    """A checkpoint, its tasks, and their total gradients.

    Attributes:
        stages: Of the checkpoint, with what the cache holds.
        train: The training tasks and their adaptation.
        gradients: Total gradients of the training tasks.
        held_out: The evaluation tasks and their adaptation.
        target_gradients: Total gradients of the evaluation tasks.
        by_instance: Whether instances are scored too.
    """

    stages: Stages
    train: Adaptation
    gradients: TaskGradients
    held_out: Adaptation
    target_gradients: TaskGradients
    by_instance: bool = True

    @classmethod
    def of(cls, stages: Stages, *, by_instance: bool = True) -> Given:
        """Computes the gradients, or takes them from the cache."""
        train, gradients = differentiated(stages)
        held_out = stages.evaluation_adaptation()
        targets = stages.gradients(held_out)
        return cls(stages, train, gradients, held_out, targets, by_instance)

    @cached_property
    def own(self) -> Tensor:
        """``[n_tasks, n_params]``: ``D L_k``."""
        return self.stages.tensor(self.gradients.gradients)

    @cached_property
    def targets(self) -> Tensor:
        """``[n_targets, n_params]``, float64: ``D M`` of every target, or of their mean."""
        return self.of_targets(self.stages.tensor(self.target_gradients.gradients).double())

    def of_targets(self, each: Tensor) -> Tensor:
        """Rows of evaluation tasks, or their mean where that alone is the target."""
        single = self.stages.problem.config.influence.targets == "mean"
        return each.mean(dim=0, keepdim=True) if single else each

    @property
    def target_ids(self) -> list[str]:
        """What the targets are called."""
        problem = self.stages.problem
        each = problem.config.influence.targets == "each"
        return problem.evaluation.task_ids if each else ["mean"]

    def unscored_instances(self) -> Floats:
        """``[n_instances]`` of nan."""
        return np.full(self.train.task_set.n_instances, np.nan)

    def same_for_all(self, tasks: Floats) -> Floats:
        """``[n_tasks, n_targets]`` of scores ``[n_tasks]`` that do not look at the targets."""
        return np.repeat(tasks[:, None], len(self.target_ids), axis=1)


@dataclass(frozen=True)
class Factored:
    """Influences as a weight times a product, each of which checkpoints average by itself.

    Attributes:
        task_weights: ``[n_tasks]``.
        task_products: ``[n_tasks, n_targets]``.
        instance_weights: ``[n_instances]``.
        instance_products: ``[n_instances]``.
    """

    task_weights: Floats
    task_products: Floats
    instance_weights: Floats
    instance_products: Floats

    @property
    def task_influence(self) -> Floats:
        """``[n_tasks, n_targets]``."""
        return self.task_weights[:, None] * self.task_products

    @property
    def instance_influence(self) -> Floats:
        """``[n_instances]``."""
        return self.instance_weights * self.instance_products


@dataclass(frozen=True)
class MethodScores:
    """What a method says of a checkpoint.

    Attributes:
        task_influence: ``[n_tasks, n_targets]``, positive = harmful.
        instance_influence: ``[n_instances]`` on the mean of the targets, in the task set's order
            of instances, positive = harmful; nan where instances are not scored.
        solver: How it was solved for, as the manifest has it.
        warnings: One line for each thing that did not go as asked.
        factored: What the influences are made of, where several checkpoints need to know.
    """

    task_influence: Floats
    instance_influence: Floats
    solver: dict[str, Any]
    warnings: tuple[str, ...] = ()
    factored: Factored | None = None


class Method(Protocol):
    """Scores tasks and instances by one checkpoint."""

    def __call__(self, given: Given) -> MethodScores:
        """The scores."""
