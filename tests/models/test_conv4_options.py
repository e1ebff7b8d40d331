"""Conv-4 with other depths, activations, features and initial weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from metaaudit.config.model import Conv4Config
from metaaudit.errors import ModelError
from metaaudit.models import Model, build_model

CONV3: dict[str, Any] = {
    "blocks": 3,
    "hidden": 16,
    "norm": "none",
    "activation": "softplus",
    "features": "flatten",
}


def built(shape: tuple[int, ...] = (1, 14, 14), **changes: Any) -> Model:
    config = Conv4Config(name="conv4", in_channels=shape[0], **changes)
    return build_model(config, input_shape=shape, ways=5)


def test_conv_3_of_5125_parameters() -> None:
    """Convolutions 160 + 2320 + 2320, a head of 64 x 5 + 5."""
    assert sum(p.numel() for p in built(**CONV3).initial().values()) == 5125


def test_conv_3_is_what_it_says() -> None:
    """Against the same network written out."""
    model = built(**CONV3)
    params = model.initial()
    inputs = torch.rand(4, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    x: Tensor = inputs
    for block in range(3):
        weight, bias = (params[f"blocks.{block}.conv.{name}"] for name in ("weight", "bias"))
        x = functional.softplus(functional.conv2d(x, weight, bias, stride=2, padding=1))
    expected = x.flatten(1) @ params["head.weight"].T + params["head.bias"]
    torch.testing.assert_close(model(params, inputs), expected)


@pytest.mark.parametrize("side", [7, 14, 28])
@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("features", ["mean", "flatten"])
def test_strides_leave_something_of_any_image(side: int, blocks: int, features: str) -> None:
    model = built((3, side, side + 1), hidden=4, blocks=blocks, features=features)
    inputs = torch.zeros(2, 3, side, side + 1)
    left = functional.interpolate(inputs, (-(-side // 2**blocks), -(-(side + 1) // 2**blocks)))
    positions = left.shape[2] * left.shape[3] if features == "flatten" else 1
    assert model.initial()["head.weight"].shape == (5, 4 * positions)
    assert model(model.initial(), inputs).shape == (2, 5)


@pytest.mark.parametrize(("features", "width"), [(None, 8 * 9), ("flatten", 8 * 9), ("mean", 8)])
def test_features_of_max_pooling(features: str | None, width: int) -> None:
    model = built(hidden=8, blocks=2, downsample="max_pool", features=features)
    assert model.initial()["head.weight"].shape == (5, width)


@pytest.mark.parametrize("blocks", [4, 5])
def test_too_small_for_so_many_poolings(blocks: int) -> None:
    with pytest.raises(ModelError, match="leaves nothing of 14x14"):
        built(blocks=blocks, downsample="max_pool")
    assert len(built(blocks=3, downsample="max_pool").initial()) > 0


def test_defaults_are_as_before() -> None:
    assert Conv4Config(name="conv4").model_dump(
        include={"blocks", "activation", "features", "gain"}
    ) == {
        "blocks": 4,
        "activation": "relu",
        "features": None,
        "gain": None,
    }
    module = built((1, 28, 28)).module
    assert sum(isinstance(one, nn.ReLU) for one in module.modules()) == 4


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_gain_is_the_spread_times_the_root_of_the_fan_in(gain: float) -> None:
    params = built((3, 16, 16), hidden=64, blocks=3, gain=gain).initial()
    for block, channels in enumerate((3, 64, 64)):
        weight = params[f"blocks.{block}.conv.weight"]
        expected = gain / (channels * 9) ** 0.5
        assert float(weight.std()) == pytest.approx(expected, rel=5 / (2 * weight.numel()) ** 0.5)
        assert not params[f"blocks.{block}.conv.bias"].any()
    other = built((3, 16, 16), hidden=64, blocks=3).initial()
    assert other["blocks.0.conv.bias"].any()
