"""Random projections of gradients, which about keep their products (Johnson and Lindenstrauss)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 22
"""Signs that are held at once."""


@dataclass(frozen=True)
class Projection:
    """``P [size, dimension]`` of random signs over ``sqrt(dimension)``, so that ``E[P P^T] = I``.

    It is drawn anew in blocks each time that it is used, on the CPU, and so is the same on every
    device, and nothing depends on how many vectors are projected at once.

    Attributes:
        size: Of a vector.
        dimension: Of its projection.
        seed: A number or several, of the signs.
    """

    size: int
    dimension: int
    seed: tuple[int, ...]

    def down(self, vectors: Tensor) -> Tensor:
        """``v P``: ``[k, dimension]`` from rows ``[k, size]``, float64."""
        total = vectors.new_zeros(len(vectors), self.dimension, dtype=torch.float64)
        for rows, block in self._blocks(vectors.device):
            total += vectors[:, rows].double() @ block
        return total

    def up(self, vectors: Tensor) -> Tensor:
        """``v P^T``: ``[k, size]`` from rows ``[k, dimension]``, float64."""
        parts = [vectors.double() @ block.T for _, block in self._blocks(vectors.device)]
        return torch.cat(parts, dim=1)

    def _blocks(self, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
        rng, height = np.random.default_rng(self.seed), max(1, BLOCK // self.dimension)
        for start in range(0, self.size, height):
            rows = slice(start, min(start + height, self.size))
            signs = rng.integers(0, 2, (rows.stop - rows.start, self.dimension), dtype=np.int8)
            block = torch.from_numpy(2 * signs - 1).to(device, torch.float64)
            yield rows, block / self.dimension**0.5
