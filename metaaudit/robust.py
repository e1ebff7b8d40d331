"""Statistics that a few extreme values do not move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation (MAD)."""


def robust_z(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``(x - median) / (1.4826 MAD)`` of every value.

    All are 0 where at least half of the values are equal: there is no spread to compare with.
    """
    if not len(values):
        return np.zeros(0)
    centred = values - np.median(values)
    spread = MAD_TO_SIGMA * np.median(np.abs(centred))
    z: npt.NDArray[np.float64] = centred / spread if spread > 0 else np.zeros_like(centred)
    return z
