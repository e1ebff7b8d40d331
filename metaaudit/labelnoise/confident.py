"""Confident learning within each task (Northcutt, Jiang and Chuang, 2021, section 3).

An instance is counted under the class that it is confidently predicted as: the likeliest class
``c`` whose probability reaches the mean out-of-fold probability of ``c`` over the instances
labelled ``c``. Where that class is not the given label, the label is flagged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.task_set import Ints, TaskSet
from metaaudit.labelnoise.cross_fitting import Probabilities


@dataclass(frozen=True)
class LabelNoise:
    """What cross-fitting says of every label, in the task set's order of instances.

    Attributes:
        loss: ``[n_instances]``, out-of-fold cross-entropy of the given label.
        score: ``[n_instances]``, 1 minus its out-of-fold probability: ``mislabel_score``.
        suggested: ``[n_instances]``, the class that a flagged label is confidently predicted as;
            elsewhere the likeliest one.
        mislabeled: ``[n_instances]``, whether confident learning flags the label.
        label_noise: ``[n_tasks]``, share of flagged labels in each task.
    """

    loss: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    suggested: Ints
    mislabeled: npt.NDArray[np.bool_]
    label_noise: npt.NDArray[np.float64]


def label_noise(log_probabilities: Probabilities, task_set: TaskSet) -> LabelNoise:
    """Judges every label by its out-of-fold probabilities.

    Args:
        log_probabilities: ``[n_instances, n_outputs]``.
        task_set: The tasks, which give the labels.
    """
    n = task_set.n_instances
    loss, score = np.empty(n), np.empty(n)
    suggested, flagged = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.bool_)
    share = np.empty(len(task_set))
    start = 0
    for row, task in enumerate(task_set.tasks):
        labels = np.concatenate([task.support_y, task.query_y])
        part = slice(start, start := start + len(labels))
        log_p = log_probabilities[part]
        given = log_p[np.arange(len(labels)), labels]
        loss[part], score[part] = -given, -np.expm1(given)
        confident = confident_class(np.exp(log_p), labels)
        flagged[part] = confidently_other(np.exp(log_p), labels)
        likeliest = log_p[:, : labels.max() + 1].argmax(axis=1)
        # Under a low threshold the confident class can be less likely than the given label.
        suggested[part] = np.where(flagged[part], confident, likeliest)
        share[row] = flagged[part].mean()
    return LabelNoise(loss, np.clip(score, 0.0, 1.0), suggested, flagged, share)


def confident_class(probabilities: Probabilities, labels: Ints) -> Ints:
    """The class that each instance of a task is confidently predicted as; else its given label.

    Args:
        probabilities: ``[n, n_outputs]`` out-of-fold probabilities.
        labels: ``[n]`` given labels.
    """
    classes = np.unique(labels)
    thresholds = np.array([probabilities[labels == c, c].mean() for c in classes])
    picked = probabilities[:, classes]
    confident = np.where(picked >= thresholds, picked, -1.0)
    best: Ints = classes[confident.argmax(axis=1)]
    return np.where(confident.max(axis=1) >= 0, best, labels)


def confidently_other(probabilities: Probabilities, labels: Ints) -> npt.NDArray[np.bool_]:
    """Whether each instance of a task is confidently predicted as another class than labelled.

    Args:
        probabilities: ``[n, n_outputs]`` out-of-fold probabilities.
        labels: ``[n]`` given labels.
    """
    flagged: npt.NDArray[np.bool_] = confident_class(probabilities, labels) != labels
    return flagged
