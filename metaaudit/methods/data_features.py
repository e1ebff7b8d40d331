"""The features of all training instances, by the configured checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from metaaudit.bilevel import Advance
from metaaudit.cache import Arrays
from metaaudit.curvature import code_hash, weights_hash
from metaaudit.errors import ModelError
from metaaudit.finite import check_finite
from metaaudit.inputs.task_set import TaskSet
from metaaudit.keeping import Kept
from metaaudit.learners import Forward
from metaaudit.loading import Weights, load_weights
from metaaudit.models import Head, Params
from metaaudit.problem import Problem
from metaaudit.selection import Observer, Seen, features_of
from metaaudit.stages import Stages

FEATURES = "features"

SELECTING = (
    "config/training.py",
    "methods/data_features.py",
    "methods/mts.py",
    "selection/*.py",
    "training/state.py",
)
"""Files that features and learned weights are computed by, beside those of every score."""


def data_features(stages: Stages) -> np.ndarray:
    """``[n_instances, width]``, the same whichever of several checkpoints the stages are of.

    Positions are those in the task, or in the whole of a labelled data set.
    """
    problem, train = stages.problem, stages.problem.train
    trajectory = _trajectory(stages)
    looking = _Looking(problem, trajectory)

    def compute(rows: list[int], advance: Advance) -> Arrays:
        some = train.select(rows)
        found = looking.features(some)
        check_finite(FEATURES, some, found.sum(axis=1))
        advance(len(rows))
        return {FEATURES: found}

    def compute_all(advance: Advance) -> Arrays:
        return compute(list(range(len(train))), advance)

    try:
        kept = features_stage(stages, trajectory)
        if train.labelled:
            return stages.keeping.whole(kept, compute_all, len(train))[FEATURES]
        return stages.keeping.by_task(kept, train, compute)[FEATURES]
    finally:
        problem.take_buffers(stages.weights.buffers)


@dataclass(frozen=True)
class _Looking:
    """Looks at tasks at each of some checkpoints."""

    problem: Problem
    trajectory: list[Weights]

    def features(self, task_set: TaskSet) -> np.ndarray:
        """``[n_instances, width]`` of some tasks."""
        groups = self.problem.config.influence.mts.features
        seen = [one.seen(task_set) for one in self._observers()]
        if task_set.labelled:
            seen = [[Seen.joined(tasks)] for tasks in seen]
        each = zip(*seen, strict=True)
        return np.concatenate([features_of(one, groups, self._held_out) for one in each])

    @cached_property
    def _held_out(self) -> np.ndarray | None:
        """At the last checkpoint, whose buffers the model has by then."""
        if "held-out" not in self.problem.config.influence.mts.features:
            return None
        last = observer_of(self.problem, self.trajectory[-1].params)
        return last.before(self.problem.evaluation)

    def _observers(self) -> Iterator[Observer]:
        """Of each checkpoint, whose buffers the model has while its turn lasts."""
        for weights in self.trajectory:
            self.problem.take_buffers(weights.buffers)
            yield observer_of(self.problem, weights.params)


def features_stage(stages: Stages, trajectory: list[Weights] | None = None) -> Kept:
    """The stage that computes them."""
    problem, groups = stages.problem, stages.problem.config.influence.mts.features
    checkpoints = _trajectory(stages) if trajectory is None else trajectory
    key = {
        **stages.base_key(problem.train),
        "selecting": code_hash(SELECTING),
        "weights": [weights_hash({**one.params, **one.buffers}) for one in checkpoints],
        "groups": groups,
        "held_out": problem.evaluation.content_hash if "held-out" in groups else None,
    }
    return Kept(FEATURES, FEATURES, key)


def observer_of(problem: Problem, params: Params) -> Observer:
    """What looks at a problem's instances at some meta-parameters."""
    counts = range(problem.steps + 1) if problem.steps else [None]
    steps = [problem.with_steps(count) for count in counts]
    return Observer(steps, _embedding(problem), params, problem.batching)


def _trajectory(stages: Stages) -> list[Weights]:
    """All checkpoints, in the order of the configuration."""
    problem = stages.problem
    if len(problem.config.checkpoints) == 1:
        return [stages.weights]
    weights = [load_weights(problem, path) for path in problem.config.checkpoints]
    problem.take_buffers(stages.weights.buffers)
    return weights


def _embedding(problem: Problem) -> Forward:
    """The network before its last layer; its outputs where it does not end with a linear one."""
    try:
        return Head.of(problem.model, problem.train.pool.input_shape).features
    except ModelError:
        return problem.model
