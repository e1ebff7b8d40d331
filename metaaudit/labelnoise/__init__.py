"""Mislabeled instances and tasks: what learners say of labels they were kept from."""

from metaaudit.labelnoise.calibration import calibrate, harder
from metaaudit.labelnoise.cross_fitting import (
    assign_folds,
    best_steps,
    cross_fit,
    leave_one_out_fit,
    mean_probabilities,
    support_fit,
)
from metaaudit.labelnoise.detection import Evidence, LabelNoise, detect
from metaaudit.labelnoise.fits import adapted_fit, own_influence
from metaaudit.labelnoise.items import Item, class_name
from metaaudit.labelnoise.judgement import Judgement, Probabilities, judge
from metaaudit.labelnoise.task_kinds import Contradictions

__all__ = [
    "Contradictions",
    "Evidence",
    "Item",
    "Judgement",
    "LabelNoise",
    "Probabilities",
    "adapted_fit",
    "assign_folds",
    "best_steps",
    "calibrate",
    "class_name",
    "cross_fit",
    "detect",
    "harder",
    "judge",
    "leave_one_out_fit",
    "mean_probabilities",
    "own_influence",
    "support_fit",
]
