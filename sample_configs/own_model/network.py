"""A network of one's own, for `model: {factory: ...}`."""

from torch import nn


def build(hidden: int, ways: int) -> nn.Module:
    """A small convolutional network for 28x28 greyscale images."""
    return nn.Sequential(
        nn.Conv2d(1, hidden, 5, stride=2),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 5, stride=2),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(hidden * 16, ways),
    )
