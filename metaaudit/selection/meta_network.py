"""A small network from features of a datum to its weight, and how that weight learns.

With normalised weights ``p_i`` in the training loss ``sum_i p_i l_i`` and one look-ahead step of
size ``eta``, the held-out loss after the step changes with ``p_i`` by ``-eta a_i``, where
``a_i = g . grad l_i`` is the alignment of a datum's gradient with the held-out gradient ``g``. So
the meta-network descends along ``-eta sum_i a_i p_i(phi)``, in which ``a`` is held constant: the
exact derivative, where *Learning a Meta-network for Training Data Selection* (arXiv 2606.00571)
takes central differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Normalisation = Literal["sum", "softmax"]


@dataclass(frozen=True)
class MetaNetwork:
    """Two hidden layers and one output (100 wide and a sigmoid in the paper).

    Attributes:
        layers: From features ``[n, width]`` to one number each.
        normalisation: ``sum`` divides the sigmoids of a batch by their sum; ``softmax`` takes the
            softmax of the outputs over the batch.
    """

    layers: nn.Sequential
    normalisation: Normalisation = "sum"

    @classmethod
    def new(
        cls, width: int, hidden: int, normalisation: Normalisation, seed: int, like: Tensor
    ) -> MetaNetwork:
        """Weights drawn from a seed.

        Args:
            width: Number of features.
            hidden: Width of the hidden layers.
            normalisation: Of the weights of a batch.
            seed: Of the draw.
            like: A tensor of the device and the precision.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = nn.Sequential(
                nn.Linear(width, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, 1),
            )
        return cls(layers.to(like), normalisation)

    def weights(self, features: Tensor) -> Tensor:
        """``w [n]`` in (0, 1), whatever the normalisation: how much a datum is to count."""
        outputs: Tensor = self.layers(features)
        return outputs.squeeze(-1).sigmoid()

    def shares(self, features: Tensor) -> Tensor:
        """``p [n]``, which add up to 1 over the batch."""
        outputs: Tensor = self.layers(features).squeeze(-1)
        if self.normalisation == "softmax":
            return outputs.softmax(dim=0)
        weights = outputs.sigmoid()
        return weights / weights.sum()

    def lookahead(self, features: Tensor, alignment: Tensor, step: float) -> Tensor:
        """What the held-out loss gains by one step on the weighted batch, to first order.

        Args:
            features: ``[n, width]``.
            alignment: ``a [n]``.
            step: ``eta``.
        """
        return -step * (self.shares(features) * alignment.detach()).sum()


def weight_slopes(weights: Tensor, alignment: Tensor, step: float) -> Tensor:
    """Derivative ``[n]`` of the held-out loss in each weight ``w_i``, divided by their sum ``S``.

    It is ``-(eta / S) (a_i - sum_j p_j a_j)``: a datum gains weight as far as it is better aligned
    than the weighted mean, and the slopes are orthogonal to ``w``, so that gradient flow keeps
    ``|w|`` while ``S`` falls as the weights concentrate.

    Args:
        weights: ``w [n]``.
        alignment: ``a [n]``.
        step: ``eta``.
    """
    total = weights.sum()
    centred = alignment - (weights * alignment).sum() / total
    return -(step / total) * centred


def effective_batch(shares: Tensor) -> float:
    """``1 / sum_i p_i^2``: as many data count, where the others might as well not be there."""
    return float(1 / (shares * shares).sum())
