"""Learned selection of data, and how noisy the gradients are that bilevel estimates rest on."""

from metaaudit.selection.dynamics import DYNAMICS, dynamics
from metaaudit.selection.features import Observer, Seen, features_of, standardised, task_features
from metaaudit.selection.flow import weight_flow
from metaaudit.selection.gsnr import (
    FEWEST,
    Floats,
    SignalToNoise,
    by_parameter,
    gram,
    measured_agreement,
    signal_to_noise,
)
from metaaudit.selection.hypergradient import Hypergradient
from metaaudit.selection.meta_network import MetaNetwork, effective_batch, weight_slopes
from metaaudit.selection.mts import Selected, Selector
from metaaudit.selection.positions import HELD_OUT, POSITIONS, beside_held_out, positions
from metaaudit.selection.weighted_batch import (
    WeightedBatch,
    WeightedInstances,
    WeightedTasks,
)

__all__ = [
    "DYNAMICS",
    "FEWEST",
    "HELD_OUT",
    "POSITIONS",
    "Floats",
    "Hypergradient",
    "MetaNetwork",
    "Observer",
    "Seen",
    "Selected",
    "Selector",
    "SignalToNoise",
    "WeightedBatch",
    "WeightedInstances",
    "WeightedTasks",
    "beside_held_out",
    "by_parameter",
    "dynamics",
    "effective_batch",
    "features_of",
    "gram",
    "measured_agreement",
    "positions",
    "signal_to_noise",
    "standardised",
    "task_features",
    "weight_flow",
    "weight_slopes",
]
