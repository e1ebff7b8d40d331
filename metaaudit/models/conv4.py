"""Conv-4, the common few-shot network (Vinyals et al., 2016; Finn et al., 2017)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from metaaudit.config.model import Conv4Config
from metaaudit.models.images import SpatialMean, check_images, check_positions

MOST_GROUPS = 8
GROUP_CHANNELS = 4
_FEATURES = {"stride": "mean", "max_pool": "flatten"}
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "softplus": nn.Softplus}


def conv4(config: Conv4Config, input_shape: tuple[int, ...]) -> nn.Module:
    """Builds the network for images of ``input_shape`` (channels, height, width).

    Raises:
        ModelError: The images have other channels, or are too small for so many poolings.
    """
    sides = check_images(input_shape, config.in_channels)
    if config.downsample == "max_pool":
        height, width = (side // 2**config.blocks for side in sides)
        check_positions("downsample: max_pool", input_shape, (height, width))
    else:
        height, width = (-(-side // 2**config.blocks) for side in sides)
    blocks = [
        _block(config.in_channels if i == 0 else config.hidden, config)
        for i in range(config.blocks)
    ]
    flat = (config.features or _FEATURES[config.downsample]) == "flatten"
    return nn.Sequential(
        OrderedDict(
            blocks=nn.Sequential(*blocks),
            features=nn.Flatten() if flat else SpatialMean(),
            head=nn.Linear(config.hidden * (height * width if flat else 1), config.ways),
        )
    )


def _block(channels: int, config: Conv4Config) -> nn.Module:
    pooled = config.downsample == "max_pool"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    conv = nn.Conv2d(channels, config.hidden, 3, padding=1, stride=1 if pooled else 2)
    if config.gain is not None:
        nn.init.normal_(conv.weight, std=config.gain / (channels * 9) ** 0.5)
        nn.init.constant_(conv.get_parameter("bias"), 0.0)
    layers["conv"] = conv
    if config.norm == "batch":
        layers["norm"] = nn.BatchNorm2d(config.hidden, track_running_stats=False)
    elif config.norm == "group":
        layers["norm"] = nn.GroupNorm(_groups(config.hidden), config.hidden)
    layers["activation"] = _ACTIVATIONS[config.activation]()
    if pooled:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def _groups(channels: int) -> int:
    """As many groups as divide the channels and have some each: one value has no spread."""
    fitting = range(1, min(MOST_GROUPS, channels // GROUP_CHANNELS) + 1)
    return max((groups for groups in fitting if channels % groups == 0), default=1)
