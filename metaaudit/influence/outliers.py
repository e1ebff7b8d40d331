"""Which tasks stand out. A ranking always has a top: neither sign nor rank alone flags anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metaaudit.robust import MAD_TO_SIGMA, q_values, robust_z

Scores = npt.NDArray[np.float64]

FEWEST = 20
TAIL = 0.1
HEAVIEST = 0.45
"""Largest shape of a fitted tail, whose variance is then still finite."""
RESAMPLES = 1000
INTERVAL = 0.95


@dataclass(frozen=True)
class Outliers:
    """An outlier test over tasks.

    Attributes:
        z: ``[n_tasks]`` robust z-scores.
        q_value: ``[n_tasks]`` the smallest false-discovery rate at which each would be flagged.
        flagged: ``[n_tasks]``, bool.
    """

    z: Scores
    q_value: Scores
    flagged: npt.NDArray[np.bool_]


def laplace_tail(z: Scores) -> Scores:
    """Upper-tail probability of a robust z-score if the values follow a Laplace distribution.

    Influences of clean tasks have heavier tails than a normal distribution, under which a clean
    data set would always have outliers. The MAD of a Laplace distribution of scale ``b`` is ``b ln
    2``.
    """
    scaled = z * MAD_TO_SIGMA * np.log(2.0)
    half = 0.5 * np.exp(-np.abs(scaled))
    p: Scores = np.where(scaled >= 0, half, 1 - half)
    return p


def mirrored_tail(z: Scores) -> Scores:
    """Upper-tail probability of a robust z-score if the upper tail is as heavy as the lower one.

    What stands out above cannot tell how heavy the tail of ordinary tasks is; the tasks below can.
    A generalised Pareto distribution is fitted, by its moments, to how far the lowest tenth lies
    below the rest (peaks over a threshold; Pickands, 1975), and read on the upper side. It is never
    taken to be lighter than a Laplace distribution.
    """
    threshold = -np.quantile(z, TAIL)
    excess = -z[-z > threshold] - threshold
    laplace = 1 / (MAD_TO_SIGMA * np.log(2.0))
    if not len(excess):
        return laplace_tail(z)
    mean, variance = float(excess.mean()), float(excess.var())
    shape = 0.5 * (1 - mean**2 / variance) if variance > 0 else 0.0
    shape = min(max(shape, 0.0), HEAVIEST)
    scale = max(mean * (1 - shape), laplace)
    beyond = np.maximum(z - threshold, 0.0) / scale
    tail = np.exp(-beyond) if shape == 0 else (1 + shape * beyond) ** (-1 / shape)
    fitted = np.where(z > threshold, TAIL * tail, 1.0)
    return np.maximum(fitted, laplace_tail(z))


def upper_outliers(values: Scores, fdr: float, effect: float) -> Outliers:
    """Upper outliers at a false-discovery rate (Benjamini and Hochberg, 1995) and of a least size.

    Below ``FEWEST`` tasks, where the spread is too rough an estimate, nothing is flagged.

    Args:
        values: ``[n_tasks]``.
        fdr: Share of false flags that is accepted among the flags.
        effect: Least robust z-score of an outlier.
    """
    z = robust_z(values)
    if len(values) < FEWEST or not z.any():
        return Outliers(z, np.ones(len(values)), np.zeros(len(values), dtype=np.bool_))
    q_value = np.where(z >= effect, q_values(mirrored_tail(z)), 1.0)
    return Outliers(z, q_value, q_value <= fdr)


def harmful_tasks(influence: Scores, fdr: float, effect: float) -> Outliers:
    """Tasks whose mean influence over evaluation tasks is an upper outlier and surely positive.

    Args:
        influence: ``[n_tasks, n_targets]``, positive = harmful.
        fdr: Share of false flags that is accepted among the flags.
        effect: Least robust z-score of a harmful task.
    """
    found = upper_outliers(influence.mean(axis=1), fdr, effect)
    low, _ = bootstrap_interval(influence) or (influence.mean(axis=1), None)
    q_value = np.where(low > 0, found.q_value, 1.0)
    return Outliers(found.z, q_value, q_value <= fdr)


def bootstrap_interval(influence: Scores) -> tuple[Scores, Scores] | None:
    """Percentile bootstrap over evaluation tasks of each task's mean influence (Efron, 1979).

    The same resamples serve all tasks, from a fixed seed, so that a task's interval does not depend
    on the others.

    Args:
        influence: ``[n_tasks, n_targets]``.

    Returns:
        Both ends ``[n_tasks]`` of the 95% interval; ``None`` with a single target.
    """
    n_targets = influence.shape[1]
    if n_targets == 1:
        return None
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n_targets, np.full(n_targets, 1 / n_targets), size=RESAMPLES)
    shares = counts.T / n_targets
    tail = (1 - INTERVAL) / 2
    ends = [np.quantile(influence[row] @ shares, [tail, 1 - tail]) for row in range(len(influence))]
    low, high = np.array(ends).reshape(-1, 2).T
    return low, high
