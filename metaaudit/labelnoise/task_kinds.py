"""What is wrong with whole tasks: many wrong labels, or query labels that contradict the support.

Pooled cross-fitting finds wrong labels, but where the query set follows another naming of the
classes than the support, half of the task speaks for each, and both look noisy. The plain way from
support to query shows it: some renaming of the query's classes then fits far better than none.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import expit

from metaaudit.inputs.task_set import TaskSet
from metaaudit.labelnoise.judgement import Probabilities, within_classes
from metaaudit.robust import running_rates

Floats = npt.NDArray[np.float64]


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
    noise = label_noise(wrong, task_set)
    return running_rates(fine, np.lexsort((-noise, fine)).tolist())


def contradictions(
    log_probabilities: Probabilities, task_set: TaskSet, temperature: float, lapse: float
) -> tuple[Floats, Floats]:
    """How much likelier the query labels are under the best renaming of their classes.

    The likelihood ratio of one renaming has mean 1 where the labels are right and the probabilities
    are, so that the ratio of the best one over the number of renamings is an e-value; the q-values
    are those of e-values (Wang and Ramdas, 2022).

    Args:
        log_probabilities: ``[n_instances, n_outputs]`` after adaptation to the support alone.
        task_set: The tasks.
        temperature: Of ``calibration_of``.
        lapse: Likewise.

    Returns:
        Logarithms of the likelihood ratios, 0 where no renaming is likelier, and q-values, both
        ``[n_tasks]``.
    """
    ratios, log_e = np.zeros(len(task_set)), np.empty(len(task_set))
    parts = _by_task(log_probabilities, task_set)
    for row, (task, part) in enumerate(zip(task_set.tasks, parts, strict=True)):
        labels = np.concatenate([task.support_y, task.query_y])
        classes, m = np.unique(labels), len(task.query_y)
        log_p = _softened(within_classes(part, labels)[-m:][:, classes], temperature, lapse)
        fits = np.stack([log_p[task.query_y == c].sum(axis=0) for c in classes])
        given, best = linear_sum_assignment(fits, maximize=True)
        ratios[row] = max(0.0, float(fits[given, best].sum() - np.trace(fits)))
        log_e[row] = ratios[row] - math.lgamma(len(classes) + 1)
    order = np.argsort(-log_e, kind="stable")
    with np.errstate(over="ignore"):
        rates = np.exp(np.log(len(task_set)) - np.log(np.arange(1, len(order) + 1)) - log_e[order])
    q_value = np.empty(len(task_set))
    q_value[order] = np.minimum(np.minimum.accumulate(rates[::-1])[::-1], 1.0)
    return ratios, q_value


def calibration_of(log_probabilities: Probabilities, trusted: TaskSet) -> tuple[float, float]:
    """Temperature and lapse rate at which the query labels of trusted tasks are likeliest.

    With probability ``lapse`` the learner errs at random, however sure it is.

    Args:
        log_probabilities: ``[n_instances, n_outputs]`` after adaptation to the support alone.
        trusted: Tasks whose labels are right.
    """
    parts = []
    for task, part in zip(trusted.tasks, _by_task(log_probabilities, trusted), strict=True):
        labels = np.concatenate([task.support_y, task.query_y])
        classes, m = np.unique(labels), len(task.query_y)
        log_p = within_classes(part, labels)[-m:][:, classes]
        parts.append((log_p, np.searchsorted(classes, task.query_y)))

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
