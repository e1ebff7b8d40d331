"""Learned selection of data, and how noisy the gradients are that bilevel estimates rest on."""

from metaaudit.selection.gsnr import (
    Floats,
    SignalToNoise,
    by_parameter,
    gram,
    measured_agreement,
    signal_to_noise,
)

__all__ = [
    "Floats",
    "SignalToNoise",
    "by_parameter",
    "gram",
    "measured_agreement",
    "signal_to_noise",
]
