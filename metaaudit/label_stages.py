"""What the learner says of labels: the stages that ask it, and the mean over checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from metaaudit.bilevel import Adaptation, Advance, Batching, Objective
from metaaudit.cache import Arrays
from metaaudit.finite import check_finite
from metaaudit.inputs.task_set import TaskSet
from metaaudit.keeping import Kept
from metaaudit.labelnoise import (
    Evidence,
    LabelNoise,
    Probabilities,
    adapted_fit,
    best_steps,
    cross_fit,
    detect,
    leave_one_out_fit,
    mean_probabilities,
    own_influence,
    support_fit,
)
from metaaudit.models import Params
from metaaudit.problem import Problem
from metaaudit.stages import Stages

Floats = npt.NDArray[np.float64]


CROSSFITTING = "cross-fitting"
OWN = {
    "adapted-fit": "adapted fit",
    "own-influence": "own influence",
    "leave-one-out": "leave-one-out",
}
"""Names of the stages that depend on the learner and the tasks alone, by those of their arrays."""


@dataclass(frozen=True)
class LabelStages:
    """What the learner says of labels, computed once and reused.

    Attributes:
        stages: Problem, weights and cache.
    """

    stages: Stages

    def evidence(self, task_set: TaskSet, adaptation: Adaptation) -> Evidence:
        """What the learner says of every label of a task set."""
        config = self.stages.problem.config
        signal = config.mislabel.signal
        left_out, other = None, None
        if signal == "combined":
            left_out = self.support_fit(task_set)
        if signal == "leave-one-out":
            left_out = self.leave_one_out(task_set)
        if signal == "self-influence":
            other = self.stages.self_influence(adaptation)
        if signal == "own-influence":
            other = self._own_fit("own-influence", own_influence, task_set)[:, 0]
        adapted = self._own_fit("adapted-fit", adapted_fit, task_set)
        # A learner that does not adapt cannot be kept from a fold.
        crossfit = self.cross_fit(task_set) if config.adapts else adapted
        return Evidence(crossfit, adapted, left_out, other)

    def cross_fit(self, task_set: TaskSet) -> Probabilities:
        """Out-of-fold log-probabilities of every instance."""
        problem, config = self.stages.problem, self.stages.problem.config.mislabel
        objective = problem.with_steps(self.crossfit_steps)

        def fit(some: TaskSet, advance: Advance) -> Probabilities:
            parts = objective, self.stages.weights.params, some, problem.batching
            return cross_fit(*parts, config, advance)

        return self._kept(self.crossfit_stage(task_set), task_set, fit)

    def leave_one_out(self, task_set: TaskSet) -> Probabilities:
        """Log-probabilities of every instance, each support instance left out in turn."""
        return self._own_fit("leave-one-out", leave_one_out_fit, task_set)

    def support_fit(self, task_set: TaskSet) -> Probabilities:
        """Log-probabilities of every instance, folds of the support left out in turn."""
        config = self.stages.problem.config.mislabel

        def fit(some: TaskSet, advance: Advance) -> Probabilities:
            return support_fit(*self._parts(some), config, advance)

        return self._kept(self.support_stage(task_set), task_set, fit)

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
        kept = Kept("steps", "choice of steps", key)
        return int(self.stages.keeping.whole(kept, compute, 1)["steps"])

    def support_stage(self, task_set: TaskSet) -> Kept:
        """Probabilities by learners of the support alone."""
        seed = self.stages.problem.config.mislabel.seed
        key = {**self.stages.base_key(task_set), "supportfit": seed}
        return Kept("supportfit", self.stages.named("support cross-fitting", task_set), key)

    def crossfit_stage(self, task_set: TaskSet) -> Kept:
        """Cross-fitted probabilities; chooses the steps where they are not chosen yet."""
        config = self.stages.problem.config.mislabel
        settings = [config.folds, config.repeats, config.seed, self.crossfit_steps]
        key = {**self.stages.base_key(task_set), "crossfit": settings}
        return Kept("crossfit", self.stages.named(CROSSFITTING, task_set), key)

    def own_stage(self, name: str, task_set: TaskSet) -> Kept:
        """One of ``OWN``, which depend on the learner and the tasks alone."""
        return Kept(name, self.stages.named(OWN[name], task_set), self.stages.base_key(task_set))

    def _own_fit(
        self, name: str, fit: Callable[..., Probabilities], task_set: TaskSet
    ) -> Probabilities:
        """A fit that depends on the learner and the tasks alone."""

        def own(some: TaskSet, advance: Advance) -> Probabilities:
            return fit(*self._parts(some), advance)

        return self._kept(self.own_stage(name, task_set), task_set, own)

    def _kept(
        self, kept: Kept, task_set: TaskSet, fit: Callable[[TaskSet, Advance], Probabilities]
    ) -> Probabilities:
        """A fit that the cache may hold."""

        def compute(rows: list[int], advance: Advance) -> Arrays:
            some = task_set.select(rows)
            found = fit(some, advance)
            check_finite(kept.stage, some, found.sum(axis=1))
            return {"log_probabilities": found}

        return self.stages.keeping.by_task(kept, task_set, compute)["log_probabilities"]

    def _parts(self, task_set: TaskSet) -> tuple[Objective, Params, TaskSet, Batching]:
        """What every fit starts from."""
        problem = self.stages.problem
        return problem.objective, self.stages.weights.params, task_set, problem.batching


@dataclass(frozen=True)
class LabelEvidence:
    """What the learner says of the labels of all tasks.

    Attributes:
        training: Of the training tasks.
        trusted: Of the evaluation tasks, whose labels are trusted.
    """

    training: Evidence
    trusted: Evidence

    @classmethod
    def of(cls, labels: LabelStages, train: Adaptation, held_out: Adaptation) -> Self:
        """That of one checkpoint."""
        problem = labels.stages.problem
        return cls(
            labels.evidence(problem.train, train), labels.evidence(problem.evaluation, held_out)
        )

    @classmethod
    def at(cls, stages: Stages) -> Self:
        """That of one checkpoint, of which nothing is differentiated yet."""
        adaptations = stages.training_adaptation(), stages.evaluation_adaptation()
        return cls.of(LabelStages(stages), *adaptations)

    @classmethod
    def averaged(cls, each: Sequence[LabelEvidence]) -> LabelEvidence:
        """The mean over checkpoints; a signal without a natural scale in units of what is usual."""
        if len(each) == 1:
            return each[0]
        units = [_unit(one.trusted) for one in each]
        return cls(
            _mean_evidence([one.training for one in each], units),
            _mean_evidence([one.trusted for one in each], units),
        )

    def judged(self, problem: Problem) -> LabelNoise:
        """What the evidence makes of the labels."""
        config = problem.config.mislabel
        return detect(problem.train, self.training, problem.evaluation, self.trusted, config)


def _unit(trusted: Evidence) -> float:
    """What is usual of a signal without a natural scale, which differs between checkpoints."""
    return 1.0 if trusted.other is None else float(np.median(np.abs(trusted.other))) or 1.0


def _mean_evidence(each: Sequence[Evidence], units: Sequence[float]) -> Evidence:
    def mean(get: Callable[[Evidence], Floats | None]) -> Floats | None:
        given = [values for one in each if (values := get(one)) is not None]
        return mean_probabilities(given) if given else None

    others = [
        one.other / unit for one, unit in zip(each, units, strict=True) if one.other is not None
    ]
    return Evidence(
        crossfit=mean_probabilities([one.crossfit for one in each]),
        adapted=mean_probabilities([one.adapted for one in each]),
        left_out=mean(lambda one: one.left_out),
        other=np.mean(others, axis=0) if others else None,
    )
