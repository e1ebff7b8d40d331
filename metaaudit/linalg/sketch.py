"""Fewer rows with the same second moment: random signs, and sums of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 1024


@dataclass(frozen=True)
class Sketch:
    """What stands for the many rows of a factor.

    Attributes:
        rows: ``V' [n_rows, size]``, float64.
        of: How many rows it stands for.
        error: Root mean square, over some vectors ``b``, of how far ``||V' b||^2`` is from
            ``||V b||^2``, relative to that; 0 where nothing was summed up.
    """

    rows: Tensor
    of: int
    error: float

    @property
    def summed(self) -> bool:
        """Whether there are fewer rows than there were."""
        return len(self.rows) < self.of


def sketch(factor: Tensor, most: int, vectors: Tensor, seed: int = 0) -> Sketch:
    """At most so many rows ``V'`` with ``V'^T V'`` equal to ``V^T V`` in expectation.

    Every row is given a random sign and added to one of the bundles (a count sketch; Clarkson and
    Woodruff, 2013), so that products of different rows have mean 0.

    Args:
        factor: ``V [n, size]``.
        most: Rows to come down to; with no more than that, ``V`` stays as it is.
        vectors: ``[n_vectors, size]``, for the error; none of them may depend on the signs.
        seed: Of the signs.
    """
    n = len(factor)
    if n <= most:
        return Sketch(factor.double(), n, 0.0)
    rng = np.random.default_rng([seed, n])
    signs = torch.from_numpy(rng.integers(0, 2, n) * 2.0 - 1.0).to(factor.device)
    bundles = torch.from_numpy(rng.permutation(n) % most).to(factor.device)
    rows = factor.new_zeros(most, factor.shape[1], dtype=torch.float64)
    exact = vectors.new_zeros(len(vectors), dtype=torch.float64)
    for start in range(0, n, BLOCK):
        some = slice(start, start + BLOCK)
        block = factor[some].double()
        rows.index_add_(0, bundles[some], signs[some, None] * block)
        exact += (block @ vectors.T.double()).square().sum(0)
    off = (rows @ vectors.T.double()).square().sum(0) - exact
    relative = off / exact.where(exact > 0, 1.0)
    return Sketch(rows, n, float(relative.square().mean().sqrt()))
