"""The linear datamodeling score, its noise ceiling, and how sure both are.

Sources: Park et al. (2023), "TRAK: Attributing Model Behavior at Scale", section 2, for the score;
Spearman (1904, 1910) and Brown (1910) for reliability and attenuation, from which the ceiling
follows; Owen (2007), "The pigeonhole bootstrap", for resampling rows and columns of a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

NORMAL_95 = 1.959964


def predicted_losses(influence: Floats, kept: Flags) -> Floats:
    """What influences say of the loss after training on some of the items, up to a constant.

    Removing an item changes the loss by minus its influence, so that the loss is the sum of the
    influences of what is kept, and a constant.

    Args:
        influence: ``[n_items, n_targets]``, positive = harmful.
        kept: ``[n_subsets, n_items]``: what each retraining has.

    Returns:
        ``[n_subsets, n_targets]``.
    """
    # Not kept @ influence: where little is removed, its differences would lose their digits.
    change: Floats = -((~kept).astype(np.float64) @ influence)
    return change


def lds(predicted: Floats, actual: Floats) -> Floats:
    """Linear datamodeling score: Spearman's correlation over subsets, for every target.

    Args:
        predicted: ``[n_subsets, n_targets]``.
        actual: ``[n_subsets, n_targets]``.

    Returns:
        ``[n_targets]``; 0 for a column of equal numbers, which ranks nothing.
    """
    x, y = (_standardised(rankdata(values, axis=0)) for values in (predicted, actual))
    score: Floats = (x * y).sum(axis=0)
    return score


def constant_columns(values: Floats) -> int:
    """How many targets ``[n_subsets, n_targets]`` have one number for all subsets."""
    return int((np.ptp(values, axis=0) == 0).sum())


def seed_correlation(losses: Floats) -> Floats:
    """Spearman's correlation over subsets between two seeds, mean over pairs of them.

    Args:
        losses: ``[n_subsets, n_seeds, n_targets]``, two seeds at least.

    Returns:
        ``[n_targets]``.
    """
    pairs = [lds(losses[:, a], losses[:, b]) for a, b in _pairs(losses)]
    mean: Floats = np.mean(pairs, axis=0)
    return mean


def noise_ceiling(losses: Floats) -> float | None:
    """The score that a perfect predictor of the expected loss would reach.

    Seeds correlate by ``r``, averaged over pairs of seeds and over targets; a negative average,
    which chance alone gives, counts as 0, but single negative ones do count, lest noise add up.
    The mean over ``s`` seeds then has the reliability ``s r / (1 + (s - 1) r)`` (Spearman-Brown),
    and what has no error of its own correlates with it by the square root of that. Where some
    targets are much less reliable than others this is a little too high.

    Args:
        losses: ``[n_subsets, n_seeds, n_targets]``.

    Returns:
        In [0, 1]; ``None`` with one seed, which does not tell.
    """
    seeds = losses.shape[1]
    if seeds < 2:
        return None
    return float(_ceiling(seed_correlation(losses).mean(), seeds))


@dataclass(frozen=True)
class Estimate:
    """A number, and how sure it is.

    Attributes:
        value: The estimate.
        error: Its standard error.
    """

    value: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """95% by the normal distribution."""
        reach = NORMAL_95 * self.error
        return self.value - reach, self.value + reach


@dataclass(frozen=True)
class Resampled:
    """A mean over targets, and what it is in resamples.

    Attributes:
        value: As measured.
        draws: ``[3, n_resamples]``: with subsets resampled, with targets, and with both.
    """

    value: float
    draws: Floats

    @property
    def estimate(self) -> Estimate:
        """The value with its standard error.

        Resampling both counts the part of the variance that is neither of subsets nor of targets
        three times, and each of the other two ways counts it once (Owen 2007); this counts it once.
        """
        rows, columns, both = self.draws.var(axis=1)
        variance = max(2 * (rows + columns) - both, rows, columns)
        return Estimate(self.value, math.sqrt(variance))

    def minus(self, other: Resampled) -> Resampled:
        """The difference, over the same resamples."""
        return Resampled(self.value - other.value, self.draws - other.draws)

    def over(self, other: Resampled) -> Resampled | None:
        """The ratio, linear in both near what was measured; ``None`` if that divides by 0."""
        if not other.value:
            return None
        ratio = self.value / other.value
        return Resampled(ratio, ratio + (self.draws - ratio * other.draws) / other.value)


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of subsets and of targets, the same for all that is compared.

    All targets share their subsets: the spread over targets alone is much too small an error.

    Attributes:
        rows: ``[n_subsets, n_resamples]``: how often each is in a resample.
        columns: ``[n_targets, n_resamples]``: likewise.
    """

    rows: Floats
    columns: Floats

    @classmethod
    def of(cls, shape: tuple[int, int], resamples: int, seed: int = 0) -> Bootstrap:
        """Resamples of so many subsets and targets."""
        rng = np.random.default_rng(seed)
        rows, columns = (rng.multinomial(n, np.full(n, 1 / n), resamples).T for n in shape)
        return cls(rows.astype(np.float64), columns.astype(np.float64))

    def scores(self, predicted: Sequence[Floats], actual: Floats) -> list[Resampled]:
        """The mean over targets of ``lds``, of each of several predictions."""
        return [self._mean([drawn]) for drawn in self._correlations(predicted, actual)]

    def ceiling(self, losses: Floats) -> Resampled | None:
        """``noise_ceiling``; ``None`` with one seed."""
        seeds = losses.shape[1]
        if seeds < 2:
            return None
        mean = self._mean(
            [
                found
                for seed in range(seeds - 1)
                for found in self._correlations(
                    [losses[:, later] for later in range(seed + 1, seeds)], losses[:, seed]
                )
            ]
        )
        return Resampled(float(_ceiling(mean.value, seeds)), _ceiling(mean.draws, seeds))

    def _mean(self, each: Sequence[tuple[Floats, Floats]]) -> Resampled:
        """The mean over targets of the mean of some correlations."""
        measured, drawn = (np.mean(part, axis=0) for part in zip(*each, strict=True))
        weights = self.columns / len(self.columns)
        draws = [drawn.mean(axis=0), measured @ weights, (drawn * weights).sum(axis=0)]
        return Resampled(float(measured.mean()), np.stack(draws))

    def _correlations(
        self, predicted: Sequence[Floats], actual: Floats
    ) -> list[tuple[Floats, Floats]]:
        """``lds`` as measured, and with resampled subsets, ``[n_targets, n_resamples]``."""
        drawn = np.empty((len(predicted), *self.columns.shape))
        for target in range(actual.shape[1]):
            right = self._standard_ranks(actual[:, target])
            for found, values in zip(drawn, predicted, strict=True):
                guess = self._standard_ranks(values[:, target])
                np.einsum("ij,ij->j", guess, right, out=found[target])
        measured = [lds(values, actual) for values in predicted]
        return list(zip(measured, drawn, strict=True))

    def _standard_ranks(self, values: Floats) -> Floats:
        """Ranks within each resample, centred and of length 1, ``[n_subsets, n_resamples]``.

        A rank is the number of smaller values and half that of equal ones, so that one product
        ranks all resamples at once; a subset that is there ``w`` times has the root of ``w``.
        """
        below = (values < values[:, None]) + 0.5 * (values == values[:, None])
        ranks: Floats = below @ self.rows
        ranks -= len(values) / 2
        ranks *= self._roots
        length = np.sqrt(np.einsum("ij,ij->j", ranks, ranks))
        ranks /= np.where(length > 0, length, 1)
        return ranks

    @cached_property
    def _roots(self) -> Floats:
        roots: Floats = np.sqrt(self.rows)
        return roots


def _ceiling(correlation: Floats | float, seeds: int) -> Floats:
    r = np.maximum(correlation, 0)
    ceiling: Floats = np.sqrt(seeds * r / (1 + (seeds - 1) * r))
    return ceiling


def _pairs(losses: Floats) -> list[tuple[int, int]]:
    return list(combinations(range(losses.shape[1]), 2))


def _standardised(values: Floats) -> Floats:
    """Columns of mean 0 and length 1; 0 where all numbers are one."""
    centred = values - values.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    scaled: Floats = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    return scaled
