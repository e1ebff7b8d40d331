"""Layers of every kind, and small networks of them, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from metaaudit.models.normalisation import ElementaryNorm

CLASSES = 3


@dataclass(frozen=True)
class Case:
    """A network or a layer by itself.

    Attributes:
        build: Makes it; its random numbers are those of ``seed``.
        shape: Of one input.
        train: Whether it is used in training mode.
        seed: Seed of its weights.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    train: bool = False
    seed: int = 0

    def module(self) -> nn.Module:
        """A new one, each time with the same weights and none of them 0 or 1."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            module = self.build().double()
            for part in module.modules():
                _randomise(part)
        return module.train(self.train)

    def data(self, n: int = 7, seed: int = 1) -> tuple[Tensor, Tensor]:
        """Inputs and labels."""
        return gaussian(n, *self.shape, seed=seed), torch.arange(n) % CLASSES


def gaussian(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _randomise(part: nn.Module) -> None:
    if not isinstance(part, nn.Linear | nn.Conv2d):
        for p in part.parameters(recurse=False):
            nn.init.normal_(p, 1.0, 0.3)
    if isinstance(part, _NormBase) and part.track_running_stats:
        nn.init.normal_(part.running_mean)
        nn.init.uniform_(part.running_var, 0.5, 2.0)


def elementary(norm: nn.Module) -> nn.Module:
    return ElementaryNorm(norm)


class Residual(nn.Module):
    """``x + f(x)``, written with the layer called by keyword."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + torch.tanh(self.inner(input=inputs))


LAYERS: dict[str, Case] = {
    "linear": Case(lambda: nn.Linear(4, 5), (4,)),
    "linear, no bias": Case(lambda: nn.Linear(4, 5, bias=False), (4,)),
    "linear, positions": Case(lambda: nn.Linear(4, 3), (5, 4)),
    "linear, positions, no bias": Case(lambda: nn.Linear(4, 3, bias=False), (2, 3, 4)),
    "conv": Case(lambda: nn.Conv2d(2, 3, 3), (2, 5, 4)),
    "conv, no bias": Case(lambda: nn.Conv2d(2, 3, (2, 3), bias=False), (2, 5, 4)),
    "conv, stride": Case(lambda: nn.Conv2d(2, 3, (3, 2), stride=(2, 1)), (2, 6, 4)),
    "conv, stride leaves a rest": Case(lambda: nn.Conv2d(2, 3, 2, stride=3), (2, 7, 6)),
    "conv, padding": Case(lambda: nn.Conv2d(2, 3, 3, padding=(1, 2)), (2, 4, 3)),
    "conv, same": Case(lambda: nn.Conv2d(2, 3, (3, 5), padding="same"), (2, 4, 5)),
    "conv, same, even": Case(lambda: nn.Conv2d(2, 3, (2, 4), padding="same"), (2, 4, 5)),
    "conv, valid": Case(lambda: nn.Conv2d(2, 3, 3, padding="valid"), (2, 4, 5)),
    "conv, reflect": Case(
        lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (2, 4, 5)
    ),
    "conv, circular": Case(
        lambda: nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="circular"), (2, 4, 5)
    ),
    "conv, replicate, same": Case(
        lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="replicate"), (2, 4, 5)
    ),
    "conv, dilation": Case(lambda: nn.Conv2d(2, 3, 2, dilation=(2, 3)), (2, 5, 6)),
    "conv, groups": Case(lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 4, 5)),
    "conv, groups, no bias": Case(lambda: nn.Conv2d(4, 2, 2, groups=2, bias=False), (4, 3, 4)),
    "conv, depthwise": Case(lambda: nn.Conv2d(3, 6, 3, groups=3), (3, 4, 4)),
    "conv, one position": Case(lambda: nn.Conv2d(2, 3, 3), (2, 3, 3)),
    "conv, all at once": Case(
        lambda: nn.Conv2d(
            4,
            6,
            (3, 2),
            stride=(1, 2),
            padding=(2, 1),
            dilation=(2, 1),
            groups=2,
            padding_mode="reflect",
        ),
        (4, 5, 4),
    ),
    "layer norm": Case(lambda: nn.LayerNorm(4), (4,)),
    "layer norm, no bias": Case(lambda: nn.LayerNorm(4, bias=False), (4,)),
    "layer norm, positions": Case(lambda: nn.LayerNorm(4), (2, 3, 4)),
    "layer norm, dimensions": Case(lambda: nn.LayerNorm((3, 4)), (2, 3, 4)),
    "group norm": Case(lambda: nn.GroupNorm(2, 4), (4, 3, 2)),
    "group norm, vectors": Case(lambda: nn.GroupNorm(2, 4), (4,)),
    "batch norm": Case(lambda: nn.BatchNorm2d(3), (3, 2, 4)),
    "batch norm, vectors": Case(lambda: nn.BatchNorm1d(4), (4,)),
    "batch norm, sequences": Case(lambda: nn.BatchNorm1d(3), (3, 5)),
    "batch norm, training": Case(lambda: nn.BatchNorm2d(3), (3, 2, 4), train=True),
    "batch norm, vectors, training": Case(lambda: nn.BatchNorm1d(4), (4,), train=True),
    "batch norm, never running": Case(
        lambda: nn.BatchNorm2d(3, track_running_stats=False), (3, 2, 4)
    ),
    "instance norm": Case(lambda: nn.InstanceNorm2d(3, affine=True), (3, 2, 4)),
    "instance norm, running": Case(
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (3, 2, 4)
    ),
    "instance norm, running, training": Case(
        lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True), (3, 5), train=True
    ),
    "elementary batch norm": Case(lambda: elementary(nn.BatchNorm2d(3)), (3, 2, 4)),
    "elementary batch norm, vectors": Case(lambda: elementary(nn.BatchNorm1d(4)), (4,)),
    "elementary instance norm": Case(
        lambda: elementary(nn.InstanceNorm2d(3, affine=True)), (3, 2, 4)
    ),
    "elementary layer norm": Case(lambda: elementary(nn.LayerNorm((3, 4))), (2, 3, 4)),
    "elementary layer norm, no bias": Case(lambda: elementary(nn.LayerNorm(4, bias=False)), (3, 4)),
}
"""One layer each, among them those in which the instances of a batch depend on each other."""


def classifier(layer: Case) -> Case:
    """The layer, named ``0``, and a nonlinear classifier of what leaves it."""

    def build() -> nn.Module:
        first = layer.build()
        width = first(torch.zeros(2, *layer.shape)).flatten(1).shape[1]
        return nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.Linear(width, CLASSES))

    return Case(build, layer.shape, layer.train, layer.seed)


CLASSIFIERS = {name: classifier(layer) for name, layer in LAYERS.items()}

NETWORKS: dict[str, Case] = {
    "linear": Case(lambda: nn.Linear(4, CLASSES), (4,)),
    "mlp": Case(
        lambda: nn.Sequential(
            nn.Linear(4, 6),
            nn.Tanh(),
            nn.Linear(6, 5, bias=False),
            nn.ReLU(),
            nn.Linear(5, CLASSES),
        ),
        (4,),
    ),
    "positions": Case(
        lambda: nn.Sequential(
            nn.Linear(4, 3),
            nn.LayerNorm(3),
            Residual(3),
            nn.LayerNorm((5, 3), bias=False),
            nn.Flatten(),
            nn.Linear(15, CLASSES),
        ),
        (5, 4),
    ),
    "conv": Case(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(3, 4, 2, padding=1, padding_mode="circular", bias=False),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16, CLASSES),
        ),
        (2, 6, 5),
    ),
    "groups": Case(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2, padding="same"),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.Conv2d(4, 4, 2, groups=4, bias=False),
            nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
            nn.Tanh(),
            nn.Conv2d(4, CLASSES, 3),
            nn.Flatten(),
        ),
        (2, 4, 4),
    ),
    "batch norm": Case(
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 2),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12, 4),
            nn.BatchNorm1d(4),
            nn.Linear(4, CLASSES),
        ),
        (1, 3, 3),
    ),
}
"""Networks in which no instance depends on the others."""
