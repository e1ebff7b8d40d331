"""``mts``: weights that a meta-network learns while a learner is trained."""

from __future__ import annotations

import numpy as np

from metaaudit.bilevel import Advance
from metaaudit.cache import Arrays
from metaaudit.keeping import Kept
from metaaudit.manifest import unsolved
from metaaudit.methods.base import Given, MethodScores
from metaaudit.methods.data_features import data_features, features_stage
from metaaudit.problem import Problem
from metaaudit.selection import (
    Selector,
    WeightedBatch,
    WeightedInstances,
    WeightedTasks,
    task_features,
)
from metaaudit.stages import Stages

UNITS: dict[str, type[WeightedBatch]] = {"tasks": WeightedTasks, "instances": WeightedInstances}
"""What is weighted, each in a training run of its own."""


def mts_scores(given: Given) -> MethodScores:
    """How far the weight of a task or an instance is below the mean weight of all.

    The same for every target: the weights are learned for the evaluation tasks together.
    """
    stages = given.stages
    features = data_features(stages)
    units = [unit for unit in UNITS if given.by_instance or unit == "tasks"]
    seen = features_stage(stages)
    found = {
        unit: _weights(stages, unit, features, learned_stage(stages, unit, seen)) for unit in units
    }
    instances = given.unscored_instances()
    if given.by_instance:
        instances = _below_mean(found["instances"])
    told = {
        **unsolved(stages.problem.config),
        "derivative": "unrolled",
        "learned": {
            unit: {name: one[name].tolist() for name in ("effective", "held_out_loss")}
            for unit, one in found.items()
        },
    }
    return MethodScores(given.same_for_all(_below_mean(found["tasks"])), instances, told)


def _below_mean(selected: Arrays) -> np.ndarray:
    weights = selected["weights"]
    below: np.ndarray = weights.mean() - weights
    return below


def _weights(stages: Stages, unit: str, features: np.ndarray, kept: Kept) -> Arrays:
    """What the meta-network came to, by the names of ``Selected``."""
    problem = stages.problem
    config = problem.config.influence.mts
    selector = selector_of(problem, UNITS[unit])
    start = stages.weights.params if config.start == "checkpoint" else problem.template
    own = task_features(features, problem.train) if unit == "tasks" else features

    def turn(number: int, before: Arrays | None, advance: Advance) -> Arrays:
        return selector.epoch(number, before, start, own, advance)

    def finish(arrays: Arrays) -> Arrays:
        return dict(vars(selector.selected(arrays)))

    parts = (turn, finish, config.epochs, len(problem.train))
    return stages.keeping.in_turns(kept, *parts)


def selector_of(problem: Problem, unit: type[WeightedBatch]) -> Selector:
    """What learns the weights of a problem's data."""
    config = problem.config
    parts = (problem.unrolled, problem.train, problem.evaluation, config.influence.mts)
    return Selector(unit, *parts, config.training, config.influence.seed)


def learned_stage(stages: Stages, unit: str, features: Kept) -> Kept:
    """The stage that learns the weights of one of ``UNITS`` from what another keeps."""
    config = stages.problem.config
    key = {
        **features.depends_on,
        "held_out": stages.problem.evaluation.content_hash,
        "mts": config.influence.mts.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "seed": config.influence.seed,
    }
    return Kept(f"mts-{unit}", f"learned weights of {unit}", key)
