"""The classes of a task where a network has outputs for more."""

from __future__ import annotations

import torch
from torch import Tensor


def indicators(labels: Tensor, ways: int) -> Tensor:
    """Whether each instance is of each class: ``[n, ways]`` from ``labels [n]``."""
    return labels[:, None] == torch.arange(ways, device=labels.device)


NEVER = -1e30
"""Output of a class that is never predicted: sums and squares of a few stay finite in float64."""


def without_absent(bias: Tensor, labels: Tensor) -> Tensor:
    """``bias [ways]`` so low where no label ``[n]`` is of the class that it is never predicted."""
    present = indicators(labels, len(bias)).any(0)
    return bias.where(present, NEVER)
