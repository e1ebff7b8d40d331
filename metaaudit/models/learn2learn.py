"""Networks with learn2learn's names and shapes: OmniglotFC, OmniglotCNN and CNN4.

After Santoro et al. (2016), Finn et al. (2017) and Ravi and Larochelle (2017). Within a block the
normalisation comes first in the order of parameters, which Meta-SGD's rates are numbered by.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

from metaaudit.config.model import CNN4Config, OmniglotCNNConfig, OmniglotFCConfig
from metaaudit.errors import ModelError
from metaaudit.models.images import SpatialMean, check_images, check_positions


class LinearBlock(nn.Module):
    """A linear layer, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm1d(outputs, eps=1e-3, track_running_stats=False)
        self.linear = _truncated(nn.Linear(inputs, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Applies the block."""
        return torch.relu(self.normalize(self.linear(inputs)))


class ConvBlock(nn.Module):
    """A 3x3 convolution, batch normalisation, ReLU and, if asked for, max pooling."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, max_pool: bool) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm2d(outputs)
        nn.init.uniform_(self.normalize.weight)
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=1 if max_pool else stride, padding=1)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.pool = nn.MaxPool2d(stride, stride) if max_pool else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Applies the block."""
        pooled: Tensor = self.pool(torch.relu(self.normalize(self.conv(inputs))))
        return pooled


class OmniglotCNN(nn.Module):
    """``base`` of convolutions, mean over positions, ``classifier``.

    learn2learn registers ``base`` a second time, as ``features.1``. Here only state dicts have both
    names: EK-FAC takes a tensor of two names for one that two layers share.
    """

    def __init__(self, base: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.mean = SpatialMean()
        self.classifier = classifier
        self.register_state_dict_post_hook(_name_twice)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_name_once)  # type: ignore[no-untyped-call]

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs ``[batch, ways]``."""
        outputs: Tensor = self.classifier(self.mean(self.base(inputs)))
        return outputs


def _name_twice(_: nn.Module, state: dict[str, Tensor], prefix: str, __: object) -> None:
    first = f"{prefix}base."
    for name in [name for name in state if name.startswith(first)]:
        state[f"{prefix}features.1.{name.removeprefix(first)}"] = state[name]


def _name_once(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: object) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}features.1.")]:
        del state[name]


def omniglot_fc(config: OmniglotFCConfig, input_shape: tuple[int, ...]) -> nn.Module:
    """Builds ``OmniglotFC`` for inputs of any shape, flattened."""
    widths = [math.prod(input_shape), *config.sizes]
    blocks = nn.Sequential(*(LinearBlock(*sides) for sides in pairwise(widths)))
    features = nn.Sequential(nn.Flatten(), blocks)
    head = _truncated(nn.Linear(widths[-1], config.ways))
    return nn.Sequential(OrderedDict(features=features, classifier=head))


def omniglot_cnn(config: OmniglotCNNConfig, input_shape: tuple[int, ...]) -> nn.Module:
    """Builds ``OmniglotCNN`` for images with one channel.

    Raises:
        ModelError: The inputs are no such images.
    """
    if len(input_shape) != 3 or input_shape[0] != 1:
        raise ModelError(
            "model.name",
            f"is {config.name} but the tasks' inputs have shape {list(input_shape)}",
            "images [1, height, width]",
            "set tasks.image.colour: grey, or use another model",
        )
    classifier = nn.Linear(config.hidden, config.ways)
    nn.init.normal_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    return OmniglotCNN(_blocks(1, config.hidden, config.layers, 2, max_pool=False), classifier)


def cnn4(config: CNN4Config, input_shape: tuple[int, ...]) -> nn.Module:
    """Builds ``CNN4``, the head's width after the size of the images.

    Raises:
        ModelError: The inputs are no such images, or too small.
    """
    sides = check_images(input_shape, config.in_channels)
    stride = 2 * (4 // config.layers)
    for _ in range(config.layers):
        height, width = sides
        if config.max_pool:
            sides = height // stride, width // stride
        else:
            sides = (height - 1) // stride + 1, (width - 1) // stride + 1
    positions = check_positions(config.name, input_shape, sides)
    classifier = nn.Linear(positions * config.hidden, config.ways)
    nn.init.xavier_uniform_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    blocks = _blocks(
        config.in_channels, config.hidden, config.layers, stride, max_pool=config.max_pool
    )
    return nn.Sequential(OrderedDict(features=blocks, flatten=nn.Flatten(), classifier=classifier))


def _blocks(channels: int, hidden: int, layers: int, stride: int, *, max_pool: bool) -> nn.Module:
    widths = [channels, *[hidden] * layers]
    return nn.Sequential(
        *(ConvBlock(*sides, stride, max_pool=max_pool) for sides in pairwise(widths))
    )


def _truncated(layer: nn.Linear) -> nn.Linear:
    nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
    nn.init.zeros_(layer.bias)
    return layer
