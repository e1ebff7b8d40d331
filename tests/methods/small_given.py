"""What every method is given, on tiny networks in float64, and dense references."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.func import grad, hessian

from metaaudit.bilevel import Objective
from metaaudit.cache import FactorCache, cache_folder
from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.learners import MAML
from metaaudit.loading import Weights, assemble
from metaaudit.methods import METHODS, Given, MethodScores
from metaaudit.models import Layout, Params
from metaaudit.problem import Problem
from metaaudit.stages import Stages
from tests.bilevel.small_networks import (
    batching,
    layers_of,
    random_tasks,
    small_mlp,
    task_tensors,
    unit_weights,
)
from tests.small import digits, settings

RATE, STEPS, DELTA = 0.3, 2, 0.05
EXACTLY = {"influence.tolerance": 1e-12, "influence.max_iterations": 2000}

_folders = itertools.count()


@dataclass(frozen=True)
class Unchanged:
    """A learner that does not adapt: a model that is trained once, each query a data point."""

    def adapt(self, forward: Any, loss: Any, params: Params, support: Any) -> Params:
        return dict(params)

    def meta_parameters(self, initial: Params) -> Params:
        return initial


def configured(changes: dict[str, Any] | None = None) -> Config:
    """A configuration, by dotted keys."""
    usual = {"training.weight_decay": DELTA, "compute.dtype": "float64"}
    return Config.model_validate_json(json.dumps(settings({**usual, **(changes or {})})))


def small_problem(
    changes: dict[str, Any] | None = None,
    *,
    learner: Any = None,
    batch: int = 6,
    **tasks: Any,
) -> Problem:
    """Six tasks of three features, and three to evaluate on, with a network of 26 parameters."""
    model = small_mlp()
    objective = Objective(model, learner or MAML(RATE, STEPS))
    train = random_tasks(**tasks)
    held_out = random_tasks(**{**tasks, "n_tasks": 3, "seed": 5})
    return Problem(configured(changes), train, held_out, model, objective, batching(batch))


def digit_problem(changes: dict[str, Any]) -> Problem:
    """Tasks of digits, from the configuration alone."""
    return assemble(configured({"model.hidden": [3], **changes}), *digits())


def given(problem: Problem, params: Params | None = None, **weights: Any) -> Given:
    """What a checkpoint says, with a cache of its own."""
    influence = problem.config.influence
    network = layers_of(problem.model, problem.train) if influence.uses_ekfac else None
    own = params or problem.template
    checkpoint = Weights(Path("checkpoint"), own, "", (), {}, (), **weights)
    cache = FactorCache(cache_folder() / str(next(_folders)))
    quiet = Messages(Console(file=StringIO()))
    return Given.of(Stages.of_checkpoint(problem, checkpoint, cache, quiet, network))


def scores(problem: Problem, params: Params | None = None, **weights: Any) -> MethodScores:
    """By the configured method."""
    return METHODS[problem.config.influence.method](given(problem, params, **weights))


def moved(problem: Problem, seed: int, scale: float = 0.2) -> Params:
    """Another checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: p + scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for name, p in problem.model.initial().items()
    }


@dataclass(frozen=True)
class Dense:
    """Derivatives by automatic differentiation of one task at a time, in flat parameters."""

    problem: Problem

    @cached_property
    def params(self) -> Params:
        return self.problem.model.initial()

    @cached_property
    def layout(self) -> Layout:
        return Layout.of(self.params)

    @property
    def point(self) -> torch.Tensor:
        return self.layout.flatten(self.params)

    def theta(self, task_set: Any, k: int) -> torch.Tensor:
        """Adapted parameters."""
        data = task_tensors(task_set, k)
        weights, _ = unit_weights(data)
        return self.layout.flatten(self.problem.objective.adapt(self.params, weights, data))

    def losses(self, theta: torch.Tensor, task_set: Any, k: int, part: str) -> torch.Tensor:
        """Of the instances of one set."""
        data = task_tensors(task_set, k)
        x, y = getattr(data, f"{part}_x"), getattr(data, f"{part}_y")
        return self.problem.objective.losses(self.layout.unflatten(theta, self.params), x, y)

    def partial_gradient(self, task_set: Any, k: int) -> torch.Tensor:
        """``d_theta L_k(theta_k)``."""
        theta = self.theta(task_set, k)
        return grad(lambda t: self.losses(t, task_set, k, "query").mean())(theta)

    def partial_hessian(self) -> torch.Tensor:
        """The mean over training tasks of ``d^2_theta L_k(theta_k)``."""
        task_set, total = self.problem.train, 0
        for k in range(len(task_set)):
            total = total + hessian(lambda t, k=k: self.losses(t, task_set, k, "query").mean())(
                self.theta(task_set, k)
            )
        return total / len(task_set)

    def instance_gradients(self, k: int) -> torch.Tensor:
        """``[n + m, size]`` at ``theta_k``, support first."""
        task_set = self.problem.train
        theta = self.theta(task_set, k)
        rows = [
            torch.autograd.functional.jacobian(
                lambda t, part=part: self.losses(t, task_set, k, part), theta
            )
            for part in ("support", "query")
        ]
        return torch.cat(rows)

    def weight_derivative(self, k: int, direction: torch.Tensor) -> torch.Tensor:
        """``d/d w_i [u . D L_k]`` of the support instances of a task."""
        data = task_tensors(self.problem.train, k)
        w, v = unit_weights(data)

        def along(w: torch.Tensor) -> torch.Tensor:
            total = grad(
                lambda x: self.problem.objective.task_loss(
                    self.layout.unflatten(x, self.params), w, v, data
                )
            )(self.point)
            return direction @ total

        return grad(along)(w)


def blocks(problem: Problem, instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[n_tasks, n]`` of the support and ``[n_tasks, m]`` of the query, for equal tasks."""
    n, _ = problem.train.tasks[0].shape
    rows = instances.reshape(len(problem.train), -1)
    return rows[:, :n], rows[:, n:]


def at_batch(problem: Problem, size: int) -> Problem:
    """The same with another number of tasks at once."""
    return replace(problem, batching=replace(problem.batching, size=size))
