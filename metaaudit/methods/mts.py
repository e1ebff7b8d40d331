"""``mts``: weights that a meta-network learns while a learner is trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from metaaudit.bilevel import Advance
from metaaudit.cache import Arrays
from metaaudit.errors import ModelError
from metaaudit.keeping import Key
from metaaudit.learners import Forward
from metaaudit.manifest import unsolved
from metaaudit.methods.base import Given, MethodScores
from metaaudit.models import Head
from metaaudit.problem import Problem
from metaaudit.selection import Observer, Selector
from metaaudit.stages import Stages

UNITS = {"tasks": Selector.tasks, "instances": Selector.instances}
"""What is weighted, each in a training run of its own."""


def mts_scores(given: Given) -> MethodScores:
    """How far the weight of a task or an instance is below the mean weight of all.

    The same for every target: the weights are learned for the evaluation tasks together.
    """
    learning = _Learning(given.stages)
    found = {unit: learning.weights(unit) for unit in UNITS if given.by_instance or unit == "tasks"}
    instances = given.unscored_instances()
    if given.by_instance:
        instances = _below_mean(found["instances"])
    told = {
        **unsolved(given.stages.problem.config),
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


@dataclass(frozen=True)
class _Learning:
    """Learns weights from features that tasks and instances share.

    Attributes:
        stages: Of the checkpoint.
    """

    stages: Stages

    @cached_property
    def _features(self) -> np.ndarray:
        problem = self.stages.problem
        params = self.stages.weights.params
        return observer_of(problem).features(params, problem.train, problem.batching)

    def weights(self, unit: str) -> Arrays:
        """What the meta-network came to, by the names of ``Selected``."""
        problem, params = self.stages.problem, self.stages.weights.params
        config = problem.config.influence.mts
        selector = Selector(
            problem.unrolled,
            problem.train,
            problem.evaluation,
            config,
            problem.config.training,
            problem.config.influence.seed,
        )

        def compute(advance: Advance) -> Arrays:
            start = params if config.start == "checkpoint" else problem.template
            found = UNITS[unit](selector, start, self._features, advance)
            return {name: np.asarray(values) for name, values in vars(found).items()}

        total, key = config.epochs * len(problem.train), learned_key(self.stages)
        name, stage = f"mts-{unit}", f"learned weights of {unit}"
        return self.stages.keeping.whole(name, stage, key, compute, total)


def learned_key(stages: Stages) -> Key:
    """All that learned weights depend on."""
    config = stages.problem.config
    return {
        **stages.base_key(stages.problem.train),
        "held_out": stages.problem.evaluation.content_hash,
        "mts": config.influence.mts.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "seed": config.influence.seed,
    }


def observer_of(problem: Problem) -> Observer:
    """What looks at a problem's instances, with the features that are configured."""
    counts = range(problem.steps + 1) if problem.steps else [None]
    steps = [problem.with_steps(count) for count in counts]
    return Observer(steps, _embedding(problem), tuple(problem.config.influence.mts.features))


def _embedding(problem: Problem) -> Forward:
    """The network before its last layer; its outputs where it does not end with a linear one."""
    try:
        return Head.of(problem.model, problem.train.pool.input_shape).features
    except ModelError:
        return problem.model
