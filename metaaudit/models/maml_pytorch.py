"""The networks of dragen1860's MAML-Pytorch: normalisation after the ReLU, no padding.

Its checkpoints hold the parameters as a list, ``net.vars.0`` to ``net.vars.17``, in the order of
the parameters here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from metaaudit.config.model import MamlPytorchConfig
from metaaudit.models.images import check_images, check_positions


@dataclass(frozen=True)
class _Layer:
    """A convolution's side and stride, and the stride of the 2x2 pooling after it, if any."""

    side: int
    stride: int
    pool: int | None = None

    def left(self, length: int) -> int:
        """What is left of a side of an image."""
        length = (length - self.side) // self.stride + 1
        return length if self.pool is None else (length - 2) // self.pool + 1


_LAYERS = {
    "maml-pytorch-omniglot": [_Layer(3, 2), _Layer(3, 2), _Layer(3, 2), _Layer(2, 1)],
    "maml-pytorch-mini-imagenet": [*[_Layer(3, 1, 2)] * 3, _Layer(3, 1, 1)],
}
_HIDDEN = {"maml-pytorch-omniglot": 64, "maml-pytorch-mini-imagenet": 32}
_CHANNELS = {"maml-pytorch-omniglot": 1, "maml-pytorch-mini-imagenet": 3}


def maml_pytorch(config: MamlPytorchConfig, input_shape: tuple[int, ...]) -> nn.Module:
    """Builds the network, the head's width after the size of the images.

    Raises:
        ModelError: The inputs are no images with the configured channels, or too small.
    """
    channels = config.in_channels or _CHANNELS[config.name]
    hidden = config.hidden or _HIDDEN[config.name]
    height, width = check_images(input_shape, channels)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number, layer in enumerate(_LAYERS[config.name]):
        height, width = layer.left(height), layer.left(width)
        blocks[f"block{number}"] = _block(channels, hidden, layer)
        channels = hidden
    positions = check_positions(config.name, input_shape, (height, width))
    head = nn.Linear(positions * hidden, config.ways)
    nn.init.kaiming_normal_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(blocks), flatten=nn.Flatten(), head=head)
    )


def _block(inputs: int, outputs: int, layer: _Layer) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, layer.side, layer.stride)
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    parts = OrderedDict(conv=conv, relu=nn.ReLU(), norm=nn.BatchNorm2d(outputs))
    if layer.pool is not None:
        parts["pool"] = nn.MaxPool2d(2, layer.pool)
    return nn.Sequential(parts)
