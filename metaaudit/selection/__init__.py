"""Learned selection of data, and how noisy the gradients are that bilevel estimates rest on."""

from metaaudit.selection.dynamics import DYNAMICS, dynamics
from metaaudit.selection.gsnr import (
    Floats,
    SignalToNoise,
    by_parameter,
    gram,
    measured_agreement,
    signal_to_noise,
)
from metaaudit.selection.meta_network import MetaNetwork, effective_batch, weight_slopes
from metaaudit.selection.positions import POSITIONS, positions

__all__ = [
    "DYNAMICS",
    "POSITIONS",
    "Floats",
    "MetaNetwork",
    "SignalToNoise",
    "by_parameter",
    "dynamics",
    "effective_batch",
    "gram",
    "measured_agreement",
    "positions",
    "signal_to_noise",
    "weight_slopes",
]
