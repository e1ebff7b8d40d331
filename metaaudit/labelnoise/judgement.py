"""What class probabilities say of given labels: losses, margins, suggestions.

A suggestion is confident where its probability reaches the mean out-of-fold probability of that
class over the instances of the task labelled so (confident learning within each task, after
Northcutt, Jiang and Chuang, 2021, section 3). The paper also counts an instance whose likeliest
class is not confident under a less likely one that is; that is no reason to doubt a label, so it is
left out here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.task_set import Ints, TaskSet

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """What the probabilities say of every label, in the task set's order of instances.

    Attributes:
        loss: ``[n_instances]``, cross-entropy of the given label, among the classes of its task.
        margin: ``[n_instances]``, log-probability of the likeliest other class minus that of the
            given one.
        suggested: ``[n_instances]``, the likeliest label.
        confident: ``[n_instances]``, whether another label is suggested, and confidently.
    """

    loss: npt.NDArray[np.float64]
    margin: npt.NDArray[np.float64]
    suggested: Ints
    confident: npt.NDArray[np.bool_]


def judge(log_probabilities: Probabilities, task_set: TaskSet) -> Judgement:
    """Judges every label by the probabilities of its instance.

    Batches of a labelled data set have the same classes and are judged as one task.

    Args:
        log_probabilities: ``[n_instances, n_outputs]``.
        task_set: The tasks, which give the labels.
    """
    n = task_set.n_instances
    loss, margin = np.empty(n), np.empty(n)
    suggested, confident = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.bool_)
    start = 0
    each = [task.pooled_labels for task in task_set.tasks]
    for labels in [np.concatenate(each)] if task_set.labelled else each:
        part = slice(start, start := start + len(labels))
        log_p = within_classes(log_probabilities[part], labels)
        given = log_p[np.arange(len(labels)), labels]
        others = np.where(np.arange(log_p.shape[1]) == labels[:, None], -np.inf, log_p)
        loss[part], margin[part] = -given, others.max(axis=1) - given
        probabilities = np.exp(log_p)
        suggested[part] = suggested_label(probabilities, labels)
        confident[part] = confidently_other(probabilities, labels)
    return Judgement(loss, margin, suggested, confident)


def within_classes(log_probabilities: Probabilities, labels: Ints) -> Probabilities:
    """Log-probabilities given that it is one of a task's classes; a head may have more outputs.

    Args:
        log_probabilities: ``[n, n_outputs]``.
        labels: ``[n]`` given labels, which name the classes.
    """
    classes = np.unique(labels)
    inside = np.full_like(log_probabilities, -np.inf)
    inside[:, classes] = log_probabilities[:, classes]
    normalised: Probabilities = inside - np.logaddexp.reduce(inside, axis=1, keepdims=True)
    return normalised


def suggested_label(probabilities: Probabilities, labels: Ints) -> Ints:
    """The likeliest class ``[n]`` of each instance of a task, among the classes that it has.

    Args:
        probabilities: ``[n, n_outputs]``.
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
        probabilities: ``[n, n_outputs]``.
        labels: ``[n]`` given labels.
    """
    likeliest = suggested_label(probabilities, labels)
    classes = np.unique(labels)
    thresholds = {c: probabilities[labels == c, c].mean() for c in classes}
    reached = np.array([thresholds[c] for c in likeliest])
    confident = probabilities[np.arange(len(labels)), likeliest] >= reached
    flagged: npt.NDArray[np.bool_] = confident & (likeliest != labels)
    return flagged
