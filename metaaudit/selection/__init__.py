"""Learned selection of data, and how noisy the gradients are that bilevel estimates rest on."""

from metaaudit.selection.gsnr import (
    SignalToNoise,
    by_parameter,
    gram,
    measured_agreement,
    signal_to_noise,
)

__all__ = ["SignalToNoise", "by_parameter", "gram", "measured_agreement", "signal_to_noise"]
