"""How sure a suspicion is, measured on tasks whose labels are trusted.

A score that is high for wrong labels is also high where the learner errs, and only the evaluation
tasks, whose labels are trusted, tell how often it does. What the training tasks have beyond that is
wrong labels. No distribution is assumed: the ratio of the two densities is taken to grow with the
score, and isotonic regression estimates it. With ``pi_0`` the share of right labels::

    P(label is right | score) = pi_0 f_evaluation(score) / f_training(score)

is the local false-discovery rate (Efron, 2008), and its running mean the q-value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

Scores = npt.NDArray[np.float64]

ORDINARY = 0.5
"""Above this p-value, scores are those of right labels (Storey, 2002)."""


@dataclass(frozen=True)
class Calibration:
    """How sure it is that each label is wrong.

    Attributes:
        wrong: ``[n]`` probability that the label is wrong.
        right_share: Estimated share of right labels.
    """

    wrong: Scores
    right_share: float


def calibrate(scores: Scores, trusted: Scores) -> Calibration:
    """Compares scores with those of trusted labels.

    One more trusted score is counted above all others, as in conformal p-values (Bates et al.,
    2023): without it, the first label beyond the trusted ones would be wrong for certain.

    Args:
        scores: ``[n]``, higher where a label is more suspicious.
        trusted: ``[n_trusted]`` scores of labels that are right, by the same learner.
    """
    n, n_trusted = len(scores), len(trusted) + 1
    above = len(trusted) - np.searchsorted(np.sort(trusted), scores, side="left")
    p_values = (1 + above) / n_trusted
    right_share = min(1.0, float((p_values > ORDINARY).mean()) / (1 - ORDINARY))
    highest = max(scores.max(), trusted.max(initial=-np.inf))
    values, place = np.unique(np.concatenate([scores, trusted, [highest]]), return_inverse=True)
    of_training = np.bincount(place[:n], minlength=len(values)) / n
    of_trusted = np.bincount(place[n:], minlength=len(values)) / n_trusted
    both = of_training + of_trusted
    share = isotonic_regression(of_training / both, weights=both).x[place[:n]]
    right = right_share * (1 - share) / np.maximum(share, np.finfo(float).tiny)
    return Calibration(1 - np.minimum(right, 1.0), right_share)
