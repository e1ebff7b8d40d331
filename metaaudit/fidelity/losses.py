"""What becomes of the evaluation losses without some of the training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metaaudit.config.evaluate import LdsConfig
from metaaudit.fidelity.removals import Flags, Removals
from metaaudit.fidelity.retraining import Retrained, Retraining
from metaaudit.fidelity.statistics import Floats
from metaaudit.fidelity.subsets import same_steps_epochs
from metaaudit.fidelity.workbench import Workbench

WARM_EPOCHS = 0.1
"""Share of the epochs that a warm start takes."""


@dataclass(frozen=True)
class Measured:
    """What retraining came to.

    Attributes:
        done: ``[n_removals]``: whether all seeds of it were trained within the time.
        losses: ``[n_done, n_seeds, n_targets]``.
        accuracies: Likewise.
        seconds: ``[n_done, n_seeds]``.
        reference: ``[n_seeds, n_targets]``: losses after training on everything, where single items
            are removed and there was time.
        complete: Whether there was time for all.
    """

    done: Flags
    losses: Floats
    accuracies: Floats
    seconds: Floats
    reference: Floats | None
    complete: bool

    @classmethod
    def by(cls, bench: Workbench, config: LdsConfig, removals: Removals) -> Measured:
        """Retrains with all seeds of one removal before the next, lest half a one be left."""
        single = config.remove != "subset"
        sets = [*([bench.problem.train] if single else []), *removals.task_sets]
        start = bench.weights[-1].params if config.warm_start else None
        requests = [
            Retraining(tasks, config.seed + number, start, epochs(bench, config, len(tasks)))
            for tasks in sets
            for number in range(config.seeds)
        ]
        found = bench.retrain(requests)
        groups = [found[i : i + config.seeds] for i in range(0, len(found), config.seeds)]
        complete = [whole for group in groups if (whole := _whole(group))]
        done = np.array([_whole(group) is not None for group in groups])
        reference = None
        if single:
            if done[0]:
                reference = np.stack([one.performance.losses for one in complete.pop(0)])
            done = done[1:]
        shape = (len(complete), config.seeds, len(bench.problem.evaluation))
        performances = [[one.performance for one in group] for group in complete]
        return cls(
            done,
            np.array([[p.losses for p in group] for group in performances]).reshape(shape),
            np.array([[p.accuracies for p in group] for group in performances]).reshape(shape),
            np.array([[one.seconds for one in group] for group in complete]).reshape(shape[:2]),
            reference,
            None not in found,
        )


def epochs(bench: Workbench, config: LdsConfig, n_tasks: int) -> int | None:
    """Passes over so many tasks; ``None`` for as many as the recipe has."""
    training = bench.config.training
    if not (config.same_steps or config.warm_start):
        return None
    count = max(1, round(training.epochs * WARM_EPOCHS)) if config.warm_start else training.epochs
    if config.same_steps:
        return same_steps_epochs(count, len(bench.problem.train), n_tasks, training.batch)
    return count


def _whole(group: Sequence[Retrained | None]) -> list[Retrained] | None:
    found = [one for one in group if one is not None]
    return found if len(found) == len(group) else None
