"""Mislabeled instances: cross-fitted probabilities and what confident learning makes of them."""

from metaaudit.labelnoise.confident import LabelNoise, label_noise
from metaaudit.labelnoise.cross_fitting import Probabilities, assign_folds, cross_fit

__all__ = ["LabelNoise", "Probabilities", "assign_folds", "cross_fit", "label_noise"]
