"""Confident learning within each task (after Northcutt, Jiang and Chuang, 2021, section 3).

A label is flagged where another class is likelier and confidently so: its probability reaches the
mean out-of-fold probability of that class over the instances labelled so. The paper also counts an
instance whose likeliest class is not confident under a less likely one that is; that is no reason
to doubt a label, so it is left out here.
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
        suggested: ``[n_instances]``, the likeliest label.
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
        classes = np.unique(labels)
        # Given that it is one of the task's classes: a head may have more outputs than those.
        log_p = log_probabilities[part]
        log_p = log_p - np.logaddexp.reduce(log_p[:, classes], axis=1, keepdims=True)
        given = log_p[np.arange(len(labels)), labels]
        loss[part], score[part] = -given, -np.expm1(given)
        probabilities = np.exp(log_p)
        suggested[part] = suggested_label(probabilities, labels)
        flagged[part] = confidently_other(probabilities, labels)
        share[row] = flagged[part].mean()
    return LabelNoise(loss, np.clip(score, 0.0, 1.0), suggested, flagged, share)


def suggested_label(probabilities: Probabilities, labels: Ints) -> Ints:
    """The likeliest class ``[n]`` of each instance of a task, among the classes that it has.

    Args:
        probabilities: ``[n, n_outputs]`` out-of-fold probabilities.
        labels: ``[n]`` given labels.
    """
    classes = np.unique(labels)
    likeliest: Ints = classes[probabilities[:, classes].argmax(axis=1)]
    return likeliest


def confidently_other(probabilities: Probabilities, labels: Ints) -> npt.NDArray[np.bool_]:
    """Whether each instance of a task is confidently predicted as another class than labelled.

    Under a low threshold a class can be confident and still less likely than the given label; such
    an instance is not flagged.

    Args:
        probabilities: ``[n, n_outputs]`` out-of-fold probabilities.
        labels: ``[n]`` given labels.
    """
    likeliest = suggested_label(probabilities, labels)
    classes = np.unique(labels)
    thresholds = {c: probabilities[labels == c, c].mean() for c in classes}
    reached = np.array([thresholds[c] for c in likeliest])
    confident = probabilities[np.arange(len(labels)), likeliest] >= reached
    flagged: npt.NDArray[np.bool_] = confident & (likeliest != labels)
    return flagged
