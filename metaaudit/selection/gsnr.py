"""Gradient signal-to-noise ratio: how much of a mean of gradients is their common direction.

For independent gradients ``g`` with mean ``mu`` and covariance ``Sigma``, the ratio of parameter
``j`` is ``mu_j^2 / Sigma_jj`` (Liu et al., 2020, arXiv 2001.07384) and that of the whole
``|mu|^2 / tr Sigma``; a mean of ``B`` of them has ``B`` times that. Where it is 1, at
``B = tr Sigma / |mu|^2`` (the simple noise scale of McCandlish et al., 2018, arXiv 1812.06162),
two batches agree by a cosine of a half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NORMAL_95 = 1.959964

FEWEST = 3
"""Gradients without which nothing can be said of their spread."""


@dataclass(frozen=True)
class SignalToNoise:
    """Of single gradients, without bias.

    Attributes:
        count: Gradients that it was estimated from.
        signal: ``|mu|^2``; below 0 where chance had it so.
        noise: ``tr Sigma``, of which a mean of ``B`` has ``1 / B``.
        error: Standard error of ``ratio``, by the jackknife.
        joint: Noise of which a mean has ``1 / B^2``, where a gradient is of two things drawn.
    """

    count: int
    signal: float
    noise: float
    error: float
    joint: float = 0.0

    @property
    def ratio(self) -> float:
        """``|mu|^2 / tr Sigma``."""
        return self._ratio(1)

    @property
    def interval(self) -> tuple[float, float]:
        """An interval of 95% for ``ratio``, which is not negative."""
        wide = NORMAL_95 * self.error
        return max(0.0, self.ratio - wide), max(0.0, self.ratio + wide)

    @property
    def batch(self) -> float:
        """How many make the signal as strong as the noise; infinite where there is no signal."""
        if self.signal <= 0:
            return math.inf
        root = math.sqrt(self.noise**2 + 4 * self.signal * self.joint)
        return (self.noise + root) / (2 * self.signal)

    def of_mean(self, batch: int) -> float:
        """The ratio of a mean of so many."""
        return max(0.0, self._ratio(batch))

    def agreement(self, batch: int) -> float:
        """``E[a . b] / E[|a|^2]`` of the means of two batches, about their cosine.

        It is negative where the signal is: gradients that cancel out, as those of all training
        tasks do once training rests, make batches disagree.
        """
        ratio = self._ratio(batch)
        if math.isinf(ratio):
            return 1.0
        return max(-1.0, ratio / (1 + ratio)) if ratio > -1 else -1.0

    def agreement_interval(self, batch: int) -> tuple[float, float]:
        """An interval of 95% for ``agreement``: what that of ``ratio`` makes of it."""
        low, high = (
            replace(self, signal=(self.ratio + side * NORMAL_95 * self.error) * self._noise(1))
            for side in (-1, 1)
        )
        return low.agreement(batch), high.agreement(batch)

    def _noise(self, batch: int) -> float:
        return self.noise / batch + self.joint / batch**2

    def _ratio(self, batch: int) -> float:
        noise = self._noise(batch)
        if not noise:
            return math.inf if self.signal > 0 else 0.0
        return self.signal / noise


def gram(gradients: npt.NDArray[np.floating]) -> Floats:
    """Products ``[n, n]`` of gradients ``[n, n_params]`` with each other, in float64."""
    wide = gradients.astype(np.float64)
    products: Floats = wide @ wide.T
    return products


def signal_to_noise(products: Floats) -> SignalToNoise:
    """The aggregate ratio, from the products ``[n, n]`` of gradients with each other.

    Args:
        products: Of at least ``FEWEST`` gradients.
    """
    n = len(products)
    own, rows = np.diagonal(products), products.sum(axis=1)
    diagonal, across = own.sum(), products.sum() - own.sum()
    signal, noise = _moments(across, diagonal, n)
    # The same without each gradient in turn.
    signals, noises = _moments(across - 2 * (rows - own), diagonal - own, n - 1)
    if not noise:
        return SignalToNoise(n, float(signal), 0.0, 0.0)
    left_out = signals / noises
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    return SignalToNoise(n, float(signal), float(noise), error)


def by_parameter(gradients: npt.NDArray[np.floating]) -> Floats:
    """The ratio ``[n_params]`` of every parameter, without bias; nan where nothing varies."""
    n = len(gradients)
    variance = gradients.var(axis=0, ddof=1, dtype=np.float64)
    squared = gradients.mean(axis=0, dtype=np.float64) ** 2 - variance / n
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(variance > 0, squared / variance, np.nan)
    return ratio


def measured_agreement(products: Floats, batch: int, pairs: int, seed: int) -> float:
    """``E[a . b] / E[|a|^2]`` of the means of pairs of batches that share no gradient.

    Args:
        products: ``[n, n]``.
        batch: Gradients of each of the two; at most half of all.
        pairs: How many pairs are drawn.
        seed: Of the draws.
    """
    rng, n = np.random.default_rng([seed, batch]), len(products)
    between, within = 0.0, 0.0
    for _ in range(pairs):
        drawn = rng.permutation(n)
        one, other = drawn[:batch], drawn[batch : 2 * batch]
        between += products[np.ix_(one, other)].mean()
        within += (products[np.ix_(one, one)].mean() + products[np.ix_(other, other)].mean()) / 2
    return between / within


def _moments(across: Floats, diagonal: Floats, n: int) -> tuple[Floats, Floats]:
    """``|mu|^2`` and ``tr Sigma`` from the sums of products across and of each with itself."""
    signal = across / (n * (n - 1))
    return signal, diagonal / n - signal
