"""Fully connected network."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from metaaudit.config.model import MlpConfig


def mlp(config: MlpConfig, input_shape: tuple[int, ...]) -> nn.Module:
    """Builds the network for inputs of any shape, flattened."""
    widths = [math.prod(input_shape), *config.hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], config.ways))
