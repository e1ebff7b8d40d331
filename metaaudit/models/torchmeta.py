"""The Conv-4 of torchmeta's examples and of pytorch-maml, with the names of the latter.

The former number the blocks and layers instead; their order is the same.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from metaaudit.config.model import TorchmetaConv4Config
from metaaudit.models.images import check_images, check_positions

BLOCKS = 4


def torchmeta_conv4(config: TorchmetaConv4Config, input_shape: tuple[int, ...]) -> nn.Module:
    """Builds the network, the head's width after the size of the images.

    Raises:
        ModelError: The inputs are no images with the configured channels, or too small.
    """
    height, width = check_images(input_shape, config.in_channels)
    left = height // 2**BLOCKS, width // 2**BLOCKS
    positions = check_positions(config.name, input_shape, left)
    widths = [config.in_channels, *[config.hidden] * BLOCKS]
    layers = OrderedDict(
        (f"layer{n}", _block(*channels)) for n, channels in enumerate(pairwise(widths), start=1)
    )
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(layers),
            flatten=nn.Flatten(),
            classifier=nn.Linear(positions * config.hidden, config.ways),
        )
    )


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, 3, padding=1),
            norm=nn.BatchNorm2d(outputs, track_running_stats=False),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2),
        )
    )
