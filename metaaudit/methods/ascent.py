"""``gradient-ascent``: what one step of forgetting a task does to the evaluation loss."""

from __future__ import annotations

import numpy as np

from metaaudit.bilevel import query_outcome
from metaaudit.errors import IncompleteError
from metaaudit.manifest import unsolved
from metaaudit.methods.base import Floats, Given, MethodScores
from metaaudit.methods.total import along
from metaaudit.models import Layout


def ascent_influence(given: Given) -> MethodScores:
    """``M_t(lambda) - M_t(lambda + eta D L_k)``, with ``eta`` the rate ``training.lr``.

    The step unlearns the task; where the evaluation loss drops by it, the task is harmful. ``D
    L_k`` is what training descends along. An instance has its share to first order only, ``-eta
    d/d omega [D M . D L_k]`` on the mean of the targets: a step for each would be too many.
    """
    stages = given.stages
    rate = stages.problem.config.training.lr
    shares = len(given.own) * rate * along(given, given.targets.mean(dim=0))
    return MethodScores(_drops(given, rate), shares, unsolved(stages.problem.config))


def _drops(given: Given, rate: float) -> Floats:
    """Drop of every target's loss ``[n_tasks, n_targets]`` by a step up the loss of each task."""
    stages = given.stages
    problem, params = stages.problem, stages.weights.params
    layout = Layout.of(params)
    start = layout.flatten(params).double()

    def losses(step: float, k: int) -> Floats:
        moved = layout.unflatten(start + step * given.own[k].double(), params)
        each = query_outcome(problem.unrolled(moved, problem.evaluation)).losses
        return each.mean(keepdims=True) if problem.config.influence.targets == "mean" else each

    before, after = losses(0.0, 0), []
    with stages.stage("gradient ascent", len(given.own)) as advance:
        for k in range(len(given.own)):
            after.append(losses(rate, k))
            advance(1)
    drops: Floats = before - np.stack(after)
    if not np.isfinite(drops).all():
        raise IncompleteError(
            "gradient ascent", "a step gave a loss that is not finite", remedy="lower training.lr"
        )
    return drops
