"""ResNet-12 of few-shot learning, with learn2learn's names and shapes.

After Mishra et al. (2018) as MetaOptNet has it (Lee et al., 2019). Dropout and DropBlock are left
out: outputs are a function of parameters and inputs.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from metaaudit.config.model import ResNet12Config
from metaaudit.models.images import check_images, check_positions

SLOPE = 0.1
WINDOW = 5
"""Side of the window of the last mean: the whole of an 84x84 image's features."""


class ResidualBlock(nn.Module):
    """Three normalised convolutions beside one of 1x1, then a 2x2 maximum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, outputs), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.conv3, self.bn3 = _convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(_convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.maxpool = nn.MaxPool2d(2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Applies the block."""
        found = leaky_relu(self.bn1(self.conv1(inputs)), SLOPE)
        found = leaky_relu(self.bn2(self.conv2(found)), SLOPE)
        found = self.bn3(self.conv3(found)) + self.downsample(inputs)
        pooled: Tensor = self.maxpool(leaky_relu(found, SLOPE))
        return pooled


def resnet12(config: ResNet12Config, input_shape: tuple[int, ...]) -> nn.Module:
    """Builds the network.

    Raises:
        ModelError: The inputs are no images with the configured channels, or too small.
    """
    sides = check_images(input_shape, config.in_channels)
    height, width = (side // 16 for side in sides)
    if config.avg_pool:
        height, width = height - WINDOW + 1, width - WINDOW + 1
    positions = check_positions(config.name, input_shape, (height, width))
    widths = [64, 160, 320, 640] if config.wider else [64, 128, 256, 512]
    channels = [config.in_channels, *widths]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        (f"layer{n}", nn.Sequential(ResidualBlock(*sides)))
        for n, sides in enumerate(pairwise(channels), start=1)
    )
    layers["avgpool"] = nn.AvgPool2d(WINDOW, stride=1) if config.avg_pool else nn.Identity()
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(layers),
            classifier=nn.Linear(positions * widths[-1], config.ways),
        )
    )


def _convolution(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="leaky_relu")
    return layer
