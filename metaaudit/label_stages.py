"""The stages that ask what the learner says of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from metaaudit.bilevel import Adaptation, Advance, Batching, Objective
from metaaudit.inputs.task_set import TaskSet
from metaaudit.labelnoise import (
    Evidence,
    Probabilities,
    adapted_fit,
    best_steps,
    cross_fit,
    leave_one_out_fit,
    own_influence,
    support_fit,
)
from metaaudit.models import Params
from metaaudit.stages import Arrays, Key, Stages, check_finite


@dataclass(frozen=True)
class LabelStages:
    """What the learner says of labels, computed once and reused.

    Attributes:
        stages: Problem, weights and cache.
    """

    stages: Stages

    def evidence(self, task_set: TaskSet, adaptation: Adaptation) -> Evidence:
        """What the learner says of every label of a task set."""
        signal = self.stages.problem.config.mislabel.signal
        left_out, other = None, None
        if signal == "combined":
            left_out = self.support_fit(task_set)
        if signal == "leave-one-out":
            left_out = self.leave_one_out(task_set)
        if signal == "self-influence":
            other = self.stages.self_influence(adaptation)
        if signal == "own-influence":
            other = self._fit("own influence", own_influence, task_set)[:, 0]
        adapted = self._fit("adapted fit", adapted_fit, task_set)
        return Evidence(self.cross_fit(task_set), adapted, left_out, other)

    def cross_fit(self, task_set: TaskSet) -> Probabilities:
        """Out-of-fold log-probabilities of every instance."""
        problem, config = self.stages.problem, self.stages.problem.config.mislabel
        parts = (problem.with_steps(self.crossfit_steps), self.stages.weights.params, task_set)

        def fit(advance: Advance) -> Probabilities:
            return cross_fit(*parts, problem.batching, config, advance)

        key, total = self.crossfit_key(task_set), len(task_set) * config.repeats
        return self._kept("crossfit", "cross-fitting", task_set, key, fit, total)

    def leave_one_out(self, task_set: TaskSet) -> Probabilities:
        """Log-probabilities of every instance, each support instance left out in turn."""

        def fit(advance: Advance) -> Probabilities:
            return leave_one_out_fit(*self._parts(task_set), advance)

        key, total = self.stages.base_key(task_set), len(task_set)
        return self._kept("leave-one-out", "leave-one-out", task_set, key, fit, total)

    def support_fit(self, task_set: TaskSet) -> Probabilities:
        """Log-probabilities of every instance, folds of the support left out in turn."""
        config = self.stages.problem.config.mislabel

        def fit(advance: Advance) -> Probabilities:
            return support_fit(*self._parts(task_set), config, advance)

        key, total = self.support_key(task_set), len(task_set)
        return self._kept("supportfit", "support cross-fitting", task_set, key, fit, total)

    @cached_property
    def crossfit_steps(self) -> int | None:
        """Inner steps of cross-fitting; ``None`` for a learner without any."""
        problem, steps = self.stages.problem, self.stages.problem.config.mislabel.steps
        if not problem.steps:
            return None
        if steps != "auto":
            return problem.steps if steps == "learner" else steps
        config = problem.config.mislabel

        def compute(_: Advance) -> Arrays:
            parts = (problem.with_steps, problem.steps, self.stages.weights.params, problem.train)
            return {"steps": np.array(best_steps(*parts, problem.batching, config))}

        settings = [config.folds, config.repeats, config.seed]
        key = {**self.stages.base_key(problem.train), "steps": settings}
        return int(self.stages.cached("steps", "choice of steps", key, compute, 1)["steps"])

    def support_key(self, task_set: TaskSet) -> Key:
        """All that the probabilities by learners of the support alone depend on."""
        seed = self.stages.problem.config.mislabel.seed
        return {**self.stages.base_key(task_set), "supportfit": seed}

    def crossfit_key(self, task_set: TaskSet) -> Key:
        """All that the cross-fitted probabilities of a task set depend on."""
        config = self.stages.problem.config.mislabel
        settings = [config.folds, config.repeats, config.seed, self.crossfit_steps]
        return {**self.stages.base_key(task_set), "crossfit": settings}

    def _fit(
        self, stage: str, fit: Callable[..., Probabilities], task_set: TaskSet
    ) -> Probabilities:
        """A fit that takes too little time to be worth keeping."""
        name = f"{stage}{self.stages.whose(task_set)}"
        with self.stages.stage(name, len(task_set)) as advance:
            found = fit(*self._parts(task_set), advance)
        check_finite(stage, task_set, found.sum(axis=1))
        return found

    def _kept(
        self,
        name: str,
        stage: str,
        task_set: TaskSet,
        key: Key,
        fit: Callable[[Advance], Probabilities],
        total: int,
    ) -> Probabilities:
        """A fit that the cache may hold."""

        def compute(advance: Advance) -> Arrays:
            found = fit(advance)
            check_finite(stage, task_set, found.sum(axis=1))
            return {"log_probabilities": found}

        label = f"{stage}{self.stages.whose(task_set)}"
        return self.stages.cached(name, label, key, compute, total)["log_probabilities"]

    def _parts(self, task_set: TaskSet) -> tuple[Objective, Params, TaskSet, Batching]:
        """What every fit starts from."""
        problem = self.stages.problem
        return problem.objective, self.stages.weights.params, task_set, problem.batching
