"""The stages of an audit whose results a cache may hold, and what those results depend on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from metaaudit.bilevel import (
    Adaptation,
    Advance,
    Implicit,
    InnerMethod,
    InnerProblem,
    TaskGradients,
    fisher_factor,
    most_rows,
    outer_bases,
    outer_factors,
    sampled_fisher_rows,
    total_gradients,
    weight_derivatives,
)
from metaaudit.cache import Arrays, FactorCache
from metaaudit.console import Messages
from metaaudit.curvature import Bases, Factors, Network, code_hash, fisher_terms, weights_hash
from metaaudit.finite import check_finite, check_gradients
from metaaudit.influence import self_influence
from metaaudit.inputs.task_set import TaskSet
from metaaudit.keeping import Keeping, Kept, Key
from metaaudit.loading import Weights
from metaaudit.problem import Problem
from metaaudit.team import ALONE, Team

PROBES = 4
"""Random gradients a task, unless there would be more rows than are solved for."""


@dataclass(frozen=True)
class Stages:
    """What an audit computes once and reuses.

    Attributes:
        problem: Tasks, model and learner.
        weights: Meta-parameters.
        cache: Where what can be reused is kept.
        messages: Told of progress.
        network: The model's layers, where anything is by EK-FAC.
        of: Stands after the name of each stage, where there are several checkpoints.
        team: The processes that share the work.
    """

    problem: Problem
    weights: Weights
    cache: FactorCache
    messages: Messages
    network: Network | None
    of: str = ""
    team: Team = ALONE

    @classmethod
    def of_checkpoint(
        cls,
        problem: Problem,
        weights: Weights,
        cache: FactorCache,
        messages: Messages,
        network: Network | None,
        of: str = "",
        team: Team = ALONE,
    ) -> Stages:
        """The stages of a checkpoint, whose buffers the model has from now on."""
        problem.take_buffers(weights.buffers)
        return cls(problem, weights, cache, messages, network, of, team)

    def training_adaptation(self) -> Adaptation:
        """The adaptation to the training tasks, differentiated as configured."""
        problem = self.problem
        if self._implicitly:
            return self._implicit(problem.train)
        if problem.follows_field:
            return problem.as_trained(self.weights.params, problem.train)
        return problem.unrolled(self.weights.params, problem.train)

    def evaluation_adaptation(self) -> Adaptation:
        """The adaptation to the evaluation tasks, whose total gradients are the targets."""
        problem = self.problem
        if self._implicitly:
            return self._implicit(problem.evaluation)
        return problem.unrolled(self.weights.params, problem.evaluation)

    def gradients(self, adaptation: Adaptation) -> TaskGradients:
        """Total gradients of a set of tasks."""
        kept = self.gradient_stage(adaptation.task_set)

        def compute(rows: list[int], advance: Advance) -> Arrays:
            some = adaptation.over(rows)
            found = total_gradients(some, advance)
            check_finite(kept.stage, some.task_set, found.losses)
            check_gradients(kept.stage, some.task_set, found.gradients, some.layout)
            return vars(found)

        return TaskGradients(**self.keeping.by_task(kept, adaptation.task_set, compute))

    def outer_ekfac(self, adaptation: Adaptation, gradients: torch.Tensor) -> Factors:
        """The total Hessian in the Kronecker eigenbasis."""
        problem, task_set = self.problem, adaptation.task_set
        assert self.network is not None
        network = self.network.over(adaptation.params)
        terms = fisher_terms(problem.objective.mean_loss, problem.config.influence.fisher)

        def compute(advance: Advance) -> Arrays:
            found = outer_bases(adaptation, network, terms, advance).arrays()
            return {name: matrix.cpu().numpy() for name, matrix in found.items()}

        arrays = self.keeping.whole(self.outer_stage(), compute, len(task_set))
        bases = Bases.of_arrays(network, self._tensors(arrays))
        return outer_factors(network, bases, gradients, task_set.query_sizes)

    def sampled_fisher(self, adaptation: Adaptation) -> torch.Tensor:
        """Rows of the total Hessian from random gradients of every task."""
        problem, task_set, kept = self.problem, adaptation.task_set, self.sampled_stage()
        influence = problem.config.influence
        terms = fisher_terms(problem.objective.mean_loss, influence.fisher)
        probes = self._probes

        def compute(rows: list[int], advance: Advance) -> Arrays:
            some = adaptation.over(rows)
            parts = (some, terms, probes, influence.seed, advance)
            found = sampled_fisher_rows(*parts, first=rows[0]).cpu().numpy()
            check_gradients(kept.stage, some.task_set, found, some.layout)
            return {"rows": found}

        found = self.keeping.by_task(kept, task_set, compute)
        return fisher_factor(self.tensor(found["rows"]))

    def weight_derivatives(
        self, stage: str, adaptation: Adaptation, direction: torch.Tensor
    ) -> np.ndarray:
        """``d/d omega [u . D L_k]`` ``[n_instances]`` for the weight of every instance."""
        task_set = adaptation.task_set

        def compute(rows: list[int], advance: Advance) -> Arrays:
            some = adaptation.over(rows)
            found = weight_derivatives(some, direction, advance)
            check_finite(stage, some.task_set, found)
            return {"derivatives": found}

        key = {**self.gradient_key(task_set), "direction": weights_hash({"u": direction})}
        kept = Kept("instances", stage, key)
        return self.keeping.by_task(kept, task_set, compute)["derivatives"]

    def self_influence(self, adaptation: Adaptation) -> np.ndarray:
        """Self-influence of every instance, by EK-FAC."""
        network, task_set = self.network, adaptation.task_set
        assert network is not None

        def compute(advance: Advance) -> Arrays:
            found = self_influence(adaptation, network, advance)
            check_finite("self-influence", task_set, found)
            return {"self_influence": found}

        kept = self.self_influence_stage(task_set)
        return self.keeping.whole(kept, compute, len(task_set))["self_influence"]

    def stage(
        self, name: str, total: int | None = None
    ) -> AbstractContextManager[Callable[..., None]]:
        """A stage that is timed and told of."""
        return self.messages.stage(f"{name}{self.of}", total)

    def named(self, stage: str, task_set: TaskSet) -> str:
        """The name of a stage over a set of tasks: training tasks go without saying."""
        return stage if task_set is self.problem.train else f"{stage} of evaluation tasks"

    def base_key(self, task_set: TaskSet) -> Key:
        """All that adaptation to a task set depends on."""
        config, batching = self.problem.config, self.problem.batching
        return {
            "code": code_hash(),
            "torch": torch.__version__,
            "device": batching.device.type,
            "dtype": [config.compute.dtype, config.compute.matmul],
            "model": [
                config.model.model_dump(mode="json"),
                self.problem.model.source,
                weights_hash(self.problem.model.constants()),
            ],
            "learner": config.learner.model_dump(mode="json"),
            "weights": weights_hash(self.weights.params),
            "tasks": task_set.content_hash,
        }

    def inner_stage(self, task_set: TaskSet) -> Kept:
        """The inner problems of a task set, and what their inverses need."""
        kind = self.problem.config.influence.inner.inverse
        stage = self.named(f"inner problem by {kind}", task_set)
        return Kept(f"inner-{kind}", stage, self._inner_key(task_set))

    def gradient_stage(self, task_set: TaskSet) -> Kept:
        """Total gradients of a task set."""
        return Kept("gradients", self.named("gradients", task_set), self.gradient_key(task_set))

    def outer_stage(self) -> Kept:
        """The outer eigenbasis."""
        return Kept("outer-ekfac", "outer EK-FAC", self.outer_key())

    def sampled_stage(self) -> Kept:
        """The rows of the sampled Fisher."""
        influence = self.problem.config.influence
        own = {"fisher": influence.fisher, "probes": self._probes, "seed": influence.seed}
        key = {**self.gradient_key(self.problem.train), "sampled": own}
        return Kept("sampled-fisher", "sampled Fisher", key)

    def self_influence_stage(self, task_set: TaskSet) -> Kept:
        """Self-influence of the instances of a task set."""
        name = "self-influence"
        return Kept(name, self.named(name, task_set), self.base_key(task_set))

    def _inner_key(self, task_set: TaskSet) -> Key:
        """All that the inner inverses of a task set depend on."""
        inner = self.problem.config.influence.inner
        by_ekfac = inner.inverse == "ekfac"
        own = {
            "inverse": inner.inverse,
            "rho": self.problem.rho,
            "basis": inner.basis if by_ekfac else None,
            "fisher": self.problem.config.influence.fisher if by_ekfac else None,
        }
        return {**self.base_key(task_set), "inner": own}

    def gradient_key(self, task_set: TaskSet) -> Key:
        """All that the total gradients of a task set depend on."""
        influence = self.problem.config.influence
        if influence.derivative == "unrolled":
            along = self.problem.follows_field and task_set is self.problem.train
            return {**self.base_key(task_set), "along": "field" if along else "gradient"}
        solved = [influence.tolerance, influence.max_iterations]
        by_cg = influence.inner.inverse == "cg"
        return {**self._inner_key(task_set), "solved": solved if by_cg else None}

    def outer_key(self) -> Key:
        """All that the outer eigenbasis depends on."""
        fisher = self.problem.config.influence.fisher
        return {**self.base_key(self.problem.train), "fisher": fisher}

    @property
    def _probes(self) -> int:
        asked, n_tasks = self.problem.config.influence.probes, len(self.problem.train)
        if asked != "auto":
            return asked
        n_params = sum(p.numel() for p in self.weights.params.values())
        return max(1, min(PROBES, most_rows(n_params) // n_tasks))

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """An array on the device."""
        return torch.from_numpy(array).to(self.problem.batching.device)

    @property
    def _implicitly(self) -> bool:
        return self.problem.config.influence.derivative == "implicit"

    def _implicit(self, task_set: TaskSet) -> Implicit:
        problem, influence = self.problem, self.problem.config.influence
        kept = self.inner_stage(task_set)
        method = InnerMethod(influence, self.network)
        inner: InnerProblem = problem.inner_problem(self.weights.params, task_set, self.problem.rho)

        def compute(advance: Advance) -> Arrays:
            found = {k: v.cpu().numpy() for k, v in method.state(inner, advance).items()}
            check_finite(kept.stage, task_set, found["theta"].sum(axis=1), found["stationarity"])
            return found

        state = self.keeping.whole(kept, compute, len(task_set))
        return method.implicit(inner, self._tensors(state))

    @property
    def keeping(self) -> Keeping:
        """Runs what the cache may hold."""
        batch = self.problem.batching.size
        return Keeping(self.cache, self.messages, self.team, batch, self.of)

    def _tensors(self, arrays: Arrays) -> dict[str, torch.Tensor]:
        return {name: self.tensor(values) for name, values in arrays.items()}


def of_checkpoint(number: int, count: int) -> str:
    """What stands after the name of a stage of one of some checkpoints, counted from 1.

    >>> of_checkpoint(2, 4), of_checkpoint(1, 1)
    (' of checkpoint 2', '')
    """
    return f" of checkpoint {number}" if count > 1 else ""
