"""The gradient of a meta-network by a batch of tasks and one of held-out tasks.

With outputs ``o`` of the network, shares ``p`` of a batch and alignments ``a_k``, the mean over the
held-out tasks of ``A_kt = g_t . D L_k``, the network descends along a covariance under ``p``::

    h = -eta sum_k p_k (a_k - sum_j p_j a_j) s_k,    s_k = d_k grad o_k

where ``d_k`` is ``1 - w_k`` for shares by the sum of the weights ``w``, and 1 for softmax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from metaaudit.selection.gsnr import Floats, SignalToNoise
from metaaudit.selection.meta_network import MetaNetwork, Normalisation

GROUPS = 10
"""Of tasks, each of which the jackknife leaves out."""


@dataclass(frozen=True)
class Hypergradient:
    """What there is to know of the gradients of all batches.

    Attributes:
        alignments: ``A [n_tasks, n_held_out]``.
        outputs: ``o [n_tasks]``.
        slopes: ``[n_tasks, n_weights]`` of each output in the network's parameters.
        normalisation: Of the weights of a batch.
    """

    alignments: Floats
    outputs: Floats
    slopes: Floats
    normalisation: Normalisation

    @classmethod
    def of(cls, network: MetaNetwork, features: Tensor, alignments: Floats) -> Hypergradient:
        """At the network's present parameters.

        Args:
            network: The meta-network.
            features: ``[n_tasks, width]``, standardised.
            alignments: ``[n_tasks, n_held_out]``.
        """
        layers = network.layers
        params = {name: p.detach() for name, p in layers.named_parameters()}

        def output(params: dict[str, Tensor], x: Tensor) -> Tensor:
            found: Tensor = functional_call(layers, params, (x[None],))
            return found.squeeze()

        each = vmap(grad(output), in_dims=(None, 0))(params, features)
        slopes = torch.cat([part.flatten(1) for part in each.values()], dim=1)
        outputs = vmap(output, in_dims=(None, 0))(params, features)
        wide = [values.double().cpu().numpy() for values in (outputs, slopes)]
        return cls(alignments, wide[0], wide[1], network.normalisation)

    def part(self, rows: np.ndarray, columns: np.ndarray) -> Hypergradient:
        """Of some tasks and some held-out ones."""
        chosen = self.alignments[np.ix_(rows, columns)]
        return replace(
            self, alignments=chosen, outputs=self.outputs[rows], slopes=self.slopes[rows]
        )

    def halves(self, seed: int) -> tuple[Hypergradient, Hypergradient]:
        """Two that have no task in common, training or held-out."""
        rng = np.random.default_rng(seed)
        (one, other), (first, second) = (
            np.array_split(rng.permutation(count), 2) for count in self.alignments.shape
        )
        return self.part(one, first), self.part(other, second)

    def gradient(self) -> Floats:
        """``h [n_weights]`` of all tasks as one batch, with ``eta`` of 1."""
        share, slopes = self._terms()
        mean = self.alignments.mean(axis=1)
        found: Floats = -(share * (mean - share @ mean)) @ slopes
        return found

    def single(self) -> Floats:
        """``[n_tasks, n_weights]``: what every task has in ``gradient``, their mean."""
        centred, slopes = self._centred()
        found: Floats = -centred.mean(axis=1)[:, None] * slopes
        return found

    def signal_to_noise(self) -> SignalToNoise:
        """Of the gradient that one task and one held-out task give, by U-statistics.

        Its noise is that of tasks and that of held-out tasks, of which a mean over ``B`` of each
        has ``1 / B``, and that of pairs, of which it has ``1 / B^2``. Means under ``p`` are taken
        to be those of all.
        """
        moments = self._moments()
        size = min(self.alignments.shape)
        left_out = []
        for number in range(min(GROUPS, size)):
            kept = [
                np.flatnonzero(np.arange(count) % min(GROUPS, size) != number)
                for count in self.alignments.shape
            ]
            left_out.append(self.part(*kept)._moments().ratio)
        spread, count = np.array(left_out), len(left_out)
        error = math.sqrt((count - 1) / count * float(((spread - spread.mean()) ** 2).sum()))
        noise = moments.items + moments.targets
        return SignalToNoise(size, moments.signal, noise, error, moments.pairs)

    def measured_agreement(self, batch: int, pairs: int, seed: int) -> float:
        """``E[h . h'] / E[|h|^2]`` of pairs of batches without a task in common of either kind.

        Args:
            batch: Training tasks, and held-out tasks, of each; at most half of either.
            pairs: How many pairs are drawn.
            seed: Of the draws.
        """
        rng = np.random.default_rng([seed, batch])
        between, within = 0.0, 0.0
        for _ in range(pairs):
            rows, columns = (rng.permutation(count) for count in self.alignments.shape)
            one, other = (
                self.part(rows[at : at + batch], columns[at : at + batch]).gradient()
                for at in (0, batch)
            )
            between += float(one @ other)
            within += float(one @ one + other @ other) / 2
        return between / within if within else 0.0

    def _terms(self) -> tuple[Floats, Floats]:
        """``p [n_tasks]`` and ``s [n_tasks, n_weights]``."""
        if self.normalisation == "softmax":
            share = np.exp(self.outputs - self.outputs.max())
            return share / share.sum(), self.slopes
        weights = 1 / (1 + np.exp(-self.outputs))
        return weights / weights.sum(), (1 - weights)[:, None] * self.slopes

    def _centred(self) -> tuple[Floats, Floats]:
        """``n p_k (A_kt - mean)`` and ``s_k - mean``, of which the products are what one adds.

        The second mean makes no difference to the sum, but to how far single ones are from it: a
        covariance takes both.
        """
        share, slopes = self._terms()
        centred = (len(share) * share)[:, None] * (self.alignments - share @ self.alignments)
        return centred, slopes - share @ slopes

    def _moments(self) -> _Moments:
        centred, slopes = self._centred()
        products = slopes @ slopes.T
        n, m = centred.shape
        total, own = centred.sum(axis=1), np.diagonal(products)
        every = total @ products @ total
        same_task = own @ total**2
        same_target = ((products @ centred) * centred).sum()
        same_both = own @ (centred**2).sum(axis=1)
        signal = every - same_task - same_target + same_both
        return _Moments.of(
            signal / (n * (n - 1) * m * (m - 1)),
            (same_task - same_both) / (n * m * (m - 1)),
            (same_target - same_both) / (n * m * (n - 1)),
            same_both / (n * m),
        )


class _Moments(NamedTuple):
    """Of a gradient by one task and one held-out task: its mean's square, and three variances."""

    signal: float
    items: float
    targets: float
    pairs: float

    @classmethod
    def of(cls, none: float, task: float, target: float, both: float) -> _Moments:
        """From products of two that share no task, a task, a held-out task, or both.

        A variance that chance has below 0 is 0.
        """
        variances = (task - none, target - none, both - task - target + none)
        return cls(float(none), *(max(0.0, float(value)) for value in variances))

    @property
    def ratio(self) -> float:
        noise = self.items + self.targets + self.pairs
        return self.signal / noise if noise else 0.0
