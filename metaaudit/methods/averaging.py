"""The mean of a method's scores over several checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metaaudit.methods.base import Factored, Floats, MethodScores

AS_THEY_ARE = ("trak", "loss", "grad-norm", "random")
"""Methods whose scores have one unit in all checkpoints."""


def averaged_scores(method: str, each: Sequence[MethodScores]) -> MethodScores:
    """The scores of several checkpoints as one; how they were solved for is told of the first.

    TRAK averages its weights and its products by themselves; all else is the mean of what
    ``comparable`` gives.

    Args:
        method: The value of ``influence.method``.
        each: Of every checkpoint, one at least.
    """
    if len(each) == 1:
        return each[0]
    solver = {**each[0].solver, "converged": all(one.solver["converged"] for one in each)}
    lines = [line for one in each for line in one.warnings]
    warnings = tuple(dict.fromkeys([*lines, *_unlike_rates(each)]))
    if method == "trak":
        factored = _averaged_factors(each)
        parts = factored.task_influence, factored.instance_influence
        return MethodScores(*parts, solver, warnings, factored)
    tasks, instances = (values.mean(axis=0) for values in comparable(method, each))
    return MethodScores(tasks, instances, solver, warnings)


def comparable(method: str, each: Sequence[MethodScores]) -> tuple[Floats, Floats]:
    """Influences ``[n_checkpoints, ...]`` of tasks and instances, whose mean is to be taken.

    They are brought to one spread, lest the checkpoint with the largest ones decide alone. TracIn
    is a sum over checkpoints, of which each is a part; where only some know their learning rate,
    all count alike. Losses, norms and random numbers stay as they are.
    """
    tasks = np.stack([one.task_influence for one in each])
    instances = np.stack([one.instance_influence for one in each])
    if method == "tracin":
        unlike = bool(_unlike_rates(each))
        scale = len(each) / np.array([(unlike and rate) or 1.0 for rate in _rates(each)])
        return scale[:, None, None] * tasks, scale[:, None] * instances
    if method in AS_THEY_ARE:
        return tasks, instances
    return evened(tasks), evened(instances)


def evened(influence: Floats) -> Floats:
    """``[n_checkpoints, n, ...]``, scaled so that all checkpoints have one spread over ``n``.

    The spread is the median absolute deviation, which an outlier does not widen to hide in it.
    """
    spread = np.abs(influence - np.median(influence, axis=1, keepdims=True))
    spread = np.median(spread, axis=1, keepdims=True)
    usual = spread.mean(axis=0, keepdims=True)
    result: Floats = influence * np.divide(
        usual, spread, out=np.ones_like(spread), where=spread > 0
    )
    return result


def _averaged_factors(each: Sequence[MethodScores]) -> Factored:
    parts = [vars(one.factored).values() for one in each if one.factored]
    return Factored(*(np.mean(values, axis=0) for values in zip(*parts, strict=True)))


def _rates(each: Sequence[MethodScores]) -> list[float | None]:
    return [one.solver.get("learning_rate") for one in each]


def _unlike_rates(each: Sequence[MethodScores]) -> list[str]:
    """A line where some checkpoints of TracIn tell their learning rate and others do not."""
    rates = _rates(each)
    if all(rates) or not any(rates):
        return []
    return [
        "tracin: only some of the checkpoints tell their learning rate, as those of `metaaudit "
        "train` do: all count alike"
    ]
