"""How weights of data develop by themselves, without a network between them and their slopes."""

from __future__ import annotations

import numpy as np
import torch

from metaaudit.selection.gsnr import Floats
from metaaudit.selection.meta_network import weight_slopes

STEPS = 200
"""Of Euler's method."""


def weight_flow(alignments: Floats, time: float, steps: int = STEPS) -> Floats:
    """Weights ``[steps + 1, n]`` in [0, 1] along gradient flow of the held-out loss, from 1/2 each.

    ``d w_i / d t = (n / S) (a_i - sum_j p_j a_j)`` with alignments of unit spread, so that a datum
    one standard deviation above the mean gains 2 a unit of time at first (``weight_slopes``).

    Args:
        alignments: ``a [n]``; where they do not vary nothing moves.
        time: Until when.
        steps: Of Euler's method.
    """
    spread = alignments.std()
    unit = torch.from_numpy(alignments / spread if spread else np.zeros_like(alignments))
    weights = torch.full_like(unit, 0.5)
    found = [weights]
    for _ in range(steps):
        slope = -len(unit) * weight_slopes(weights, unit, 1.0)
        weights = (weights + time / steps * slope).clamp(0, 1)
        found.append(weights)
    return torch.stack(found).numpy()
