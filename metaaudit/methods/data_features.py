"""The features of all training instances, by the configured checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from metaaudit.bilevel import Advance
from metaaudit.cache import Arrays
from metaaudit.curvature import weights_hash
from metaaudit.errors import ModelError
from metaaudit.finite import check_finite
from metaaudit.keeping import Key
from metaaudit.learners import Forward
from metaaudit.loading import Weights, load_weights
from metaaudit.models import Head, Params
from metaaudit.problem import Problem
from metaaudit.selection import Observer, features_of
from metaaudit.stages import Stages

CACHED = "features"
"""What the cache calls them, and the stage."""


def data_features(stages: Stages) -> np.ndarray:
    """``[n_instances, width]``, the same whichever of several checkpoints the stages are of."""
    problem, groups = stages.problem, stages.problem.config.influence.mts.features
    trajectory = _trajectory(stages)

    @cache
    def held_out() -> np.ndarray | None:
        last = observer_of(problem, trajectory[-1].params)
        return last.before(problem.evaluation) if "held-out" in groups else None

    def compute(rows: list[int], advance: Advance) -> Arrays:
        some = problem.train.select(rows)
        seen = [one.seen(some) for one in _observers(problem, trajectory)]
        parts = [features_of(each, groups, held_out()) for each in zip(*seen, strict=True)]
        found = np.concatenate(parts)
        check_finite(CACHED, some, found.sum(axis=1))
        advance(len(rows))
        return {CACHED: found}

    try:
        key = features_key(stages, trajectory)
        return stages.keeping.by_task(CACHED, CACHED, key, problem.train, compute)[CACHED]
    finally:
        problem.take_buffers(stages.weights.buffers)


def features_key(stages: Stages, trajectory: list[Weights] | None = None) -> Key:
    """All that they depend on."""
    problem, groups = stages.problem, stages.problem.config.influence.mts.features
    checkpoints = _trajectory(stages) if trajectory is None else trajectory
    return {
        **stages.base_key(problem.train),
        "weights": [weights_hash({**one.params, **one.buffers}) for one in checkpoints],
        "groups": groups,
        "held_out": problem.evaluation.content_hash if "held-out" in groups else None,
    }


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


def _observers(problem: Problem, trajectory: list[Weights]) -> Iterator[Observer]:
    """Of each checkpoint, whose buffers the model has while its turn lasts."""
    for weights in trajectory:
        problem.take_buffers(weights.buffers)
        yield observer_of(problem, weights.params)


def _embedding(problem: Problem) -> Forward:
    """The network before its last layer; its outputs where it does not end with a linear one."""
    try:
        return Head.of(problem.model, problem.train.pool.input_shape).features
    except ModelError:
        return problem.model
