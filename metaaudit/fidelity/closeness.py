"""How close one set of influences is to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Closeness:
    """What an approximation has in common with a reference, each a mean over the targets.

    Attributes:
        rank: Spearman's rank correlation over the items; ``None`` where either is constant.
        linear: Pearson's correlation, likewise.
        error: Norm of the difference over that of the reference; ``None`` where that is 0.
        scale: Norm over that of the reference, 1 where the size is right; ``None`` where that is 0.
    """

    rank: float | None
    linear: float | None
    error: float | None
    scale: float | None

    @classmethod
    def of(cls, found: Floats, expected: Floats) -> Closeness:
        """Compares.

        Args:
            found: ``[n_items, n_targets]``, or ``[n_items]`` for one target.
            expected: Of the same shape.
        """
        got, right = (values.reshape(len(values), -1) for values in (found, expected))
        size = np.linalg.norm(right, axis=0)
        return cls(
            _mean(_correlations(rankdata(got, axis=0), rankdata(right, axis=0))),
            _mean(_correlations(got, right)),
            _mean(_ratios(np.linalg.norm(got - right, axis=0), size)),
            _mean(_ratios(np.linalg.norm(got, axis=0), size)),
        )


def _correlations(x: Floats, y: Floats) -> Floats:
    """Pearson's ``[n_targets]`` of the columns."""
    varied = (np.ptp(x, axis=0) > 0) & (np.ptp(y, axis=0) > 0)  # rounding varies a constant's rest
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    return _ratios((x * y).sum(axis=0), np.where(varied, size, 0.0))


def _ratios(over: Floats, under: Floats) -> Floats:
    """Quotients, not a number where there is none."""
    found: Floats = np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0)
    return found


def _mean(values: Floats) -> float | None:
    """Of those that are numbers."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
