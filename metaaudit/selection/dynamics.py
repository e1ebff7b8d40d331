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
    "gradient_norm",
)
"""Names of the features, in order."""


def dynamics(log_probabilities: Floats, labels: Ints, embedding: Floats) -> Floats:
    """The features ``[n, 11]`` of the instances of a task, along some steps.

    Cross-entropy at the first and the last step, its mean and standard deviation; those of the
    margin, the log-probability of the given label less that of the likeliest other one;
    ``confidence`` and ``variability``, mean and standard deviation of the given label's probability
    (Swayamdipta et al., 2020, section 2); ``forgetting``, how often it was right at one step and
    wrong at the next (Toneva et al., 2019, section 3). At the last step ``el2n``, the norm of the
    probabilities less the one-hot label, and ``gradient_norm``, that of the loss's gradient in a
    linear last layer, the norm of their outer product with the embedding and a 1 (EL2N and GraNd of
    Paul et al., 2021, definitions 2.3 and 2.1, who take means over several early networks).

    Args:
        log_probabilities: ``[steps, n, n_outputs]``, at least one step.
        labels: ``[n]``.
        embedding: ``[n, width]``, what the last layer sees at the last step.
    """
    at = np.arange(len(labels))
    given = log_probabilities[:, at, labels]
    others = log_probabilities.copy()
    others[:, at, labels] = -np.inf
    margin = given - others.max(axis=2)
    probability, right = np.exp(given), margin > 0
    last = np.exp(log_probabilities[-1])
    last[at, labels] -= 1
    error = np.linalg.norm(last, axis=1)
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
            error,
            error * np.sqrt(1 + (embedding**2).sum(axis=1)),
        ]
    )
