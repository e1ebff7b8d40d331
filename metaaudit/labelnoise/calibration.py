"""How sure a suspicion is, measured on tasks whose labels are trusted.

A score that is high for wrong labels is also high where the learner errs, and only the evaluation
tasks, whose labels are trusted, tell how often it does. What the training tasks have beyond that is
wrong labels. No distribution is assumed: the ratio of the two densities is taken to grow with the
score, and isotonic regression estimates it::

    P(label is right | score) = f_trusted(score) / f_training(score)

is the local false-discovery rate (Efron, 2008), with a share of right labels of 1, its largest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

Scores = npt.NDArray[np.float64]


CERTAIN = -3.0
"""Logarithm of odds of 1 to 20 against a label."""


def calibrate(scores: Scores, trusted: Scores) -> Scores:
    """Probability ``[n]`` that each label is wrong, by scores of trusted labels.

    One more trusted score is counted above all others, as in conformal p-values (Bates et al.,
    2023): without it, the first label beyond the trusted ones would be wrong for certain.

    Args:
        scores: ``[n]``, higher where a label is more suspicious.
        trusted: ``[n_trusted]`` scores of labels that are right, by the same learner.
    """
    n, n_trusted = len(scores), len(trusted) + 1
    highest = max(scores.max(), trusted.max())
    values, place = np.unique(np.concatenate([scores, trusted, [highest]]), return_inverse=True)
    of_training = np.bincount(place[:n], minlength=len(values)) / n
    of_trusted = np.bincount(place[n:], minlength=len(values)) / n_trusted
    both = of_training + of_trusted
    share = isotonic_regression(of_training / both, weights=both).x[place[:n]]
    right = (1 - share) / np.maximum(share, np.finfo(float).tiny)
    wrong: Scores = 1 - np.minimum(right, 1.0)
    return wrong


def harder(log_odds: Scores, trusted: Scores) -> float:
    """By how much labels fit less surely than trusted ones; 0 where they do not.

    Tasks may be harder than the trusted ones, and wrong labels make them so, as a learner that
    adapts to them errs more often on the right ones too. It is the difference of the medians. What
    is surer than ``CERTAIN`` is all alike: beyond it, how sure a learner is of what it knows says
    nothing of how often it errs.

    Args:
        log_odds: ``[n]`` logarithms of the odds against given labels that are likelier than any
            other, so that the share of wrong ones hardly counts.
        trusted: ``[n_trusted]`` those of trusted labels, likewise.
    """
    if not len(log_odds) or not len(trusted):
        return 0.0
    ours, theirs = (np.median(np.maximum(part, CERTAIN)) for part in (log_odds, trusted))
    return max(0.0, float(ours - theirs))
