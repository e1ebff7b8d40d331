"""What is wrong with whole tasks: many wrong labels, or query labels that contradict the support.

Pooled cross-fitting finds wrong labels, but where the query set follows another naming of the
classes than the support, half of the task speaks for each, and both look noisy. The plain way from
support to query shows it: some renaming of the query's classes then fits far better than none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import expit

from metaaudit.inputs.task_set import Task, TaskSet
from metaaudit.labelnoise.judgement import Probabilities, within_classes
from metaaudit.robust import e_q_values, running_rates

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contradictions:
    """How much likelier the query labels of each task are under other names of its classes.

    Attributes:
        ratio: ``[n_tasks]`` logarithm of the likelihood ratio; 0 where no renaming is likelier.
        q_value: ``[n_tasks]``.
        renamings: For each task the classes that the best renaming changes, and what to.
    """

    ratio: Floats
    q_value: Floats
    renamings: list[dict[int, int]]

    @classmethod
    def none(cls, n_tasks: int) -> Self:
        """Those of tasks without a support, which their labels could contradict."""
        return cls(np.zeros(n_tasks), np.ones(n_tasks), [{} for _ in range(n_tasks)])


def label_noise(wrong: Floats, task_set: TaskSet) -> Floats:
    """Expected share ``[n_tasks]`` of wrong labels in each task.

    Args:
        wrong: ``[n_instances]`` probability that each label is wrong.
        task_set: The tasks.
    """
    return np.array([part.mean() for part in _by_task(wrong, task_set)])


def noisy_q_values(wrong: Floats, task_set: TaskSet, share: float) -> Floats:
    """q-values ``[n_tasks]`` of more than a share of a task's labels being wrong.

    Labels are taken to be wrong independently of each other, each with its probability, so that
    their number has a Poisson-binomial distribution.

    Args:
        wrong: ``[n_instances]`` probability that each label is wrong.
        task_set: The tasks.
        share: Of the labels; a task with no more than that is not noisy.
    """
    allowed = Fraction(str(share))  # the decimal that was typed: 0.29 of 100 is 29
    fine = np.array(
        [_at_most(part, math.floor(allowed * len(part))) for part in _by_task(wrong, task_set)]
    )
    return running_rates(fine, label_noise(wrong, task_set))


def contradictions(
    log_probabilities: Probabilities, task_set: TaskSet, temperature: float, lapse: float
) -> Contradictions:
    """How much likelier the query labels are under the best renaming of their classes.

    The likelihood ratio of one renaming has mean 1 where the labels are right and the probabilities
    are, so that the ratio of the best one over the number of renamings is an e-value; the q-values
    are those of e-values (Wang and Ramdas, 2022).

    Args:
        log_probabilities: ``[n_instances, n_outputs]`` after adaptation to the support alone.
        task_set: The tasks.
        temperature: Of ``calibration_of``.
        lapse: Likewise.
    """
    found = [
        _best_renaming(task, part, temperature, lapse)
        for task, part in zip(task_set.tasks, _by_task(log_probabilities, task_set), strict=True)
    ]
    ratios = np.array([ratio for ratio, _ in found])
    n_renamings = [math.lgamma(len(np.unique(task.pooled_labels)) + 1) for task in task_set.tasks]
    return Contradictions(
        ratios, e_q_values(ratios - np.array(n_renamings)), [renaming for _, renaming in found]
    )


def _best_renaming(
    task: Task, log_probabilities: Probabilities, temperature: float, lapse: float
) -> tuple[float, dict[int, int]]:
    """Log likelihood ratio of the best renaming of a task's query classes, and what it changes."""
    classes = np.unique(task.pooled_labels)
    log_p = _softened(_of_query(task, log_probabilities), temperature, lapse)
    fits = np.stack([log_p[task.query_y == c].sum(axis=0) for c in classes])
    given, best = linear_sum_assignment(fits, maximize=True)
    pairs = zip(classes[given].tolist(), classes[best].tolist(), strict=True)
    ratio = max(0.0, float(fits[given, best].sum() - np.trace(fits)))
    there = set(task.query_y.tolist())
    return ratio, {old: new for old, new in pairs if old != new and old in there}


def calibration_of(log_probabilities: Probabilities, trusted: TaskSet) -> tuple[float, float]:
    """Temperature and lapse rate at which the query labels of trusted tasks are likeliest.

    With probability ``lapse`` the learner errs at random, however sure it is.

    Args:
        log_probabilities: ``[n_instances, n_outputs]`` after adaptation to the support alone.
        trusted: Tasks whose labels are right.
    """
    parts = [
        (_of_query(task, part), np.searchsorted(np.unique(task.pooled_labels), task.query_y))
        for task, part in zip(trusted.tasks, _by_task(log_probabilities, trusted), strict=True)
    ]

    def loss(free: Floats) -> float:
        temperature, lapse = math.exp(free[0]), float(expit(free[1]))
        total = sum(
            -float(_softened(log_p, temperature, lapse)[np.arange(len(y)), y].sum())
            for log_p, y in parts
        )
        # Half an error in advance (Jeffreys): none among the trusted labels does not prove that
        # there are none.
        return total - 0.5 * float(np.log(lapse))

    found = minimize(loss, [0.0, -4.0], method="Nelder-Mead", bounds=[(-3, 3), (-12, 4)])
    return math.exp(found.x[0]), float(expit(found.x[1]))


def _of_query(task: Task, log_probabilities: Probabilities) -> Probabilities:
    """Log-probabilities ``[m, n_classes]`` of a task's query among its classes."""
    labels = task.pooled_labels
    within = within_classes(log_probabilities, labels)
    return within[len(task.support_y) :][:, np.unique(labels)]


def _softened(log_p: Probabilities, temperature: float, lapse: float) -> Probabilities:
    scaled = log_p / temperature
    scaled = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
    softened: Probabilities = np.logaddexp(
        np.log1p(-lapse) + scaled, np.log(lapse / log_p.shape[1])
    )
    return softened


def _at_most(wrong: Floats, most: int) -> float:
    """Probability that no more than so many of independent events happen."""
    counts = np.zeros(len(wrong) + 1)
    counts[0] = 1.0
    for p in wrong:
        counts[1:] = counts[1:] * (1 - p) + counts[:-1] * p
        counts[0] *= 1 - p
    return float(counts[: most + 1].sum())


def _by_task(values: Floats, task_set: TaskSet) -> list[Floats]:
    """The parts of ``[n_instances, ...]`` that belong to each task."""
    sizes = [sum(task.shape) for task in task_set.tasks]
    return np.split(values, np.cumsum(sizes)[:-1])
