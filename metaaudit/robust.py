"""Statistics that a few extreme values do not move, and q-values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation (MAD)."""


def robust_z(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``(x - median) / (1.4826 MAD)`` of every value.

    All are 0 where at least half of the values are equal, but for rounding: there is no spread to
    compare with.
    """
    if not len(values):
        return np.zeros(0)
    centred = values - np.median(values)
    spread = MAD_TO_SIGMA * np.median(np.abs(centred))
    rounding = 1e-12 * np.abs(values).max()
    z: npt.NDArray[np.float64] = centred / spread if spread > rounding else np.zeros_like(centred)
    return z


def q_values(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The smallest false-discovery rate at which each would be rejected.

    Benjamini and Hochberg (1995).
    """
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    rates = p_values[order] * n / np.arange(1, n + 1)
    q: npt.NDArray[np.float64] = np.empty(n)
    q[order] = np.minimum(np.minimum.accumulate(rates[::-1])[::-1], 1.0)
    return q


def e_q_values(log_e: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The smallest false-discovery rate at which each would be rejected, by e-values.

    Wang and Ramdas (2022).

    Args:
        log_e: ``[n]`` logarithms of the e-values.
    """
    with np.errstate(over="ignore"):  # a rejection of theirs is one of p-values 1/e
        return q_values(np.exp(-log_e))


def running_rates(
    errors: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Expected share of errors among all that is flagged no later than each.

    What is least likely an error is flagged first, then by falling score; what is alike in both is
    flagged together. What is an error more likely than not has the rate 1: many sure ones in front
    of it would let it through otherwise.

    Args:
        errors: ``[n]`` probability that flagging each would be an error.
        scores: ``[n]``, higher for what comes first among those that are equally sure.

    Returns:
        ``[n]`` Bayesian false-discovery rates (Efron, 2008).
    """
    order = np.lexsort((-scores, errors))
    ordered, ranks = errors[order], np.arange(1, len(errors) + 1)
    last = np.append((ordered[1:] > ordered[:-1]) | (scores[order][1:] < scores[order][:-1]), True)
    ends = np.flatnonzero(last)
    together = ends[np.searchsorted(ends, ranks - 1)]
    rates: npt.NDArray[np.float64] = np.empty(len(errors))
    rates[order] = (np.cumsum(ordered) / ranks)[together]
    rates[errors > 0.5] = 1.0
    return rates
