"""``tracin``: products of gradients, weighted by the learning rate (Pruthi et al., 2020)."""

from __future__ import annotations

import math

from metaaudit.manifest import unsolved
from metaaudit.methods.base import Given, MethodScores
from metaaudit.methods.total import along


def tracin_influence(given: Given) -> MethodScores:
    """``-eta_c D L_k . D L_t`` at a checkpoint; over several checkpoints these add up.

    ``eta_c`` is the learning rate with which training reached the checkpoint, as its file has it,
    and 1 where it has none. Adam's scaling of the steps is left out, as usual. An instance has the
    derivative of its task's in its own weight.
    """
    rate = learning_rate(given.stages.weights.metadata)
    step = 1.0 if rate is None else rate
    tasks = -step * (given.own.double() @ given.targets.T).cpu().numpy()
    instances = step * len(given.own) * along(given, given.targets.mean(dim=0))
    told = {**unsolved(given.stages.problem.config), "learning_rate": rate}
    return MethodScores(tasks, instances, told)


def learning_rate(metadata: dict[str, str]) -> float | None:
    """The learning rate that a checkpoint of ``metaaudit train`` names, if it is above 0."""
    try:
        rate = float(metadata["lr"])
    except (KeyError, ValueError):
        return None
    return rate if math.isfinite(rate) and rate > 0 else None
