"""Which tasks stand out. A ranking always has a top: neither sign nor rank alone flags anything."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from metaaudit.robust import MAD_TO_SIGMA, robust_z

Scores = npt.NDArray[np.float64]

FEWEST = 20


def laplace_tail(z: Scores) -> Scores:
    """Upper-tail probability of a robust z-score if the values follow a Laplace distribution.

    Influences of clean tasks have heavier tails than a normal distribution, under which a clean
    data set would always have outliers. The MAD of a Laplace distribution of scale ``b`` is ``b ln
    2``.
    """
    scaled = z * MAD_TO_SIGMA * np.log(2.0)
    p: Scores = np.where(
        scaled >= 0, 0.5 * np.exp(-np.abs(scaled)), 1 - 0.5 * np.exp(-np.abs(scaled))
    )
    return p


def discoveries(p_values: Scores, fdr: float) -> npt.NDArray[np.bool_]:
    """Rejections of Benjamini and Hochberg (1995) at false-discovery rate ``fdr``."""
    order = np.argsort(p_values, kind="stable")
    n = len(p_values)
    below = np.flatnonzero(p_values[order] <= fdr * np.arange(1, n + 1) / n)
    rejected = np.zeros(n, dtype=np.bool_)
    if len(below):
        rejected[order[: below[-1] + 1]] = True
    return rejected


def harmful_tasks(influence: Scores, fdr: float) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Robust z-scores of the influence and the upper outliers at a nominal false-discovery rate.

    The spread is estimated from the same values, so below ``FEWEST`` tasks, where that estimate is
    too rough, nothing is flagged.

    Args:
        influence: ``[n_tasks]``, positive = harmful.
        fdr: Share of false flags that is accepted among the flags.
    """
    z = robust_z(influence)
    flagged = discoveries(laplace_tail(z), fdr) & (influence > 0) & (len(influence) >= FEWEST)
    return z, flagged
