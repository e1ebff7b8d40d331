"""Learned selection of data, and how noisy the gradients are that bilevel estimates rest on."""

from metaaudit.selection.dynamics import DYNAMICS, dynamics
from metaaudit.selection.features import Observer, standardised, task_features
from metaaudit.selection.gsnr import (
    FEWEST,
    Floats,
    SignalToNoise,
    by_parameter,
    gram,
    measured_agreement,
    signal_to_noise,
)
from metaaudit.selection.meta_network import MetaNetwork, effective_batch, weight_slopes
from metaaudit.selection.mts import Selected, Selector
from metaaudit.selection.positions import POSITIONS, positions

__all__ = [
    "DYNAMICS",
    "FEWEST",
    "POSITIONS",
    "Floats",
    "MetaNetwork",
    "Observer",
    "Selected",
    "Selector",
    "SignalToNoise",
    "by_parameter",
    "dynamics",
    "effective_batch",
    "gram",
    "measured_agreement",
    "positions",
    "signal_to_noise",
    "standardised",
    "task_features",
    "weight_slopes",
]
