"""How weights of data develop by themselves, without a network between them and their slopes."""

from __future__ import annotations

import numpy as np
import torch

from metaaudit.selection.gsnr import Floats
from metaaudit.selection.meta_network import effective_batch, weight_slopes

STEP, MOST = 0.005, 2000
"""Of Euler's method: how long its steps are, and how many there are at most."""


def weight_flow(alignments: Floats, until: float = 0.0) -> tuple[Floats, Floats]:
    """Weights in [0, 1] along gradient flow of the held-out loss, from 1/2 each.

    ``d w_i / d t = (n / S) (a_i - sum_j p_j a_j)`` with alignments of unit spread, so that a datum
    one standard deviation above the mean gains 2 a unit of time at first (``weight_slopes``).

    Args:
        alignments: ``a [n]``; where they do not vary nothing moves.
        until: The flow ends when so small a share of the data counts, ``1 / (n sum_i p_i^2)``.

    Returns:
        Times ``[steps]`` and weights ``[steps, n]``.
    """
    spread = alignments.std()
    unit = torch.from_numpy(alignments / spread if spread else np.zeros_like(alignments))
    weights = torch.full_like(unit, 0.5)
    found = [weights]
    while len(found) <= MOST and effective_batch(weights / weights.sum()) > until * len(unit):
        slope = -len(unit) * weight_slopes(weights, unit, 1.0)
        weights = (weights + STEP * slope).clamp(0, 1)
        found.append(weights)
    times: Floats = STEP * np.arange(len(found), dtype=np.float64)
    return times, torch.stack(found).numpy()
