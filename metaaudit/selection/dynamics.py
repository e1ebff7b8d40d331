"""How an instance fares while a learner adapts, or is trained."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.task_set import Ints

Floats = npt.NDArray[np.float64]

DYNAMICS = (
    "loss_first",
    "loss_last",
    "loss_mean",
    "loss_std",
    "margin_mean",
    "margin_std",
    "confidence",
    "variability",
    "forgetting",
    "el2n",
)
"""Names of the features, in order."""


def dynamics(log_probabilities: Floats, labels: Ints) -> Floats:
    """The features ``[n, 10]`` of the instances of a task, along some steps.

    Cross-entropy at the first and the last step, its mean and standard deviation; those of the
    margin, the log-probability of the given label less that of the likeliest other one;
    ``confidence`` and ``variability``, mean and standard deviation of the given label's probability
    (Swayamdipta et al., 2020, section 2); ``forgetting``, how often it was right at one step and
    wrong at the next (Toneva et al., 2019, section 3); ``el2n``, the norm of the probabilities less
    the one-hot label, here at the last step (Paul et al., 2021, definition 2.3).

    Args:
        log_probabilities: ``[steps, n, n_outputs]``, at least one step.
        labels: ``[n]``.
    """
    at = np.arange(len(labels))
    given = log_probabilities[:, at, labels]
    others = log_probabilities.copy()
    others[:, at, labels] = -np.inf
    margin = given - others.max(axis=2)
    probability, right = np.exp(given), margin > 0
    last = np.exp(log_probabilities[-1])
    last[at, labels] -= 1
    return np.column_stack(
        [
            -given[0],
            -given[-1],
            -given.mean(axis=0),
            given.std(axis=0),
            margin.mean(axis=0),
            margin.std(axis=0),
            probability.mean(axis=0),
            probability.std(axis=0),
            (right[:-1] & ~right[1:]).sum(axis=0),
            np.linalg.norm(last, axis=1),
        ]
    )
