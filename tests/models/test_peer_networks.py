"""Networks of other code bases: names, shapes and outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metaaudit.config.model import MODELS
from metaaudit.curvature import Network
from metaaudit.errors import ModelError
from metaaudit.learners import MAML
from metaaudit.models import Head, Model, build_model

Params = dict[str, Tensor]


def build(name: str, shape: tuple[int, ...], **keys: Any) -> Model:
    config = MODELS[name].model_validate({"name": name, **keys})
    return build_model(config, input_shape=shape, ways=5)


def normalised(x: Tensor, params: Params, name: str, eps: float = 1e-5) -> Tensor:
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    return functional.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def convolved(x: Tensor, params: Params, name: str, **options: Any) -> Tensor:
    return functional.conv2d(x, params[f"{name}.weight"], params.get(f"{name}.bias"), **options)


def classified(x: Tensor, params: Params, name: str) -> Tensor:
    return functional.linear(x.flatten(1), params[f"{name}.weight"], params[f"{name}.bias"])


# Each network once more, with torch's own batch normalisation.


def omniglot_fc(params: Params, x: Tensor) -> Tensor:
    x = x.flatten(1)
    for n in range(4):
        x = classified(x, params, f"features.1.{n}.linear")
        x = normalised(x, params, f"features.1.{n}.normalize", eps=1e-3).relu()
    return classified(x, params, "classifier")


def omniglot_cnn(params: Params, x: Tensor) -> Tensor:
    for n in range(4):
        x = convolved(x, params, f"base.{n}.conv", stride=2, padding=1)
        x = normalised(x, params, f"base.{n}.normalize").relu()
    return classified(x.mean((2, 3)), params, "classifier")


def cnn4(params: Params, x: Tensor) -> Tensor:
    for n in range(4):
        x = convolved(x, params, f"features.{n}.conv", padding=1)
        x = functional.max_pool2d(normalised(x, params, f"features.{n}.normalize").relu(), 2)
    return classified(x, params, "classifier")


def resnet12(params: Params, x: Tensor) -> Tensor:
    def leaky(x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.1)

    for n in range(1, 5):
        block = f"features.layer{n}.0"
        y = x
        for part in (1, 2, 3):
            y = convolved(y, params, f"{block}.conv{part}", padding=1)
            y = normalised(y, params, f"{block}.bn{part}")
            y = leaky(y) if part < 3 else y
        side = convolved(x, params, f"{block}.downsample.0")
        x = functional.max_pool2d(leaky(y + normalised(side, params, f"{block}.downsample.1")), 2)
    return classified(functional.avg_pool2d(x, 5, stride=1), params, "classifier")


def torchmeta_conv4(params: Params, x: Tensor) -> Tensor:
    for n in range(1, 5):
        x = convolved(x, params, f"features.layer{n}.conv", padding=1)
        x = functional.max_pool2d(normalised(x, params, f"features.layer{n}.norm").relu(), 2)
    return classified(x, params, "classifier")


def maml_pytorch_omniglot(params: Params, x: Tensor) -> Tensor:
    """As the published configuration has it, by the order of the parameters."""
    values = list(params.values())
    for n, stride in enumerate((2, 2, 2, 1)):
        conv, bias, scale, shift = values[4 * n : 4 * n + 4]
        x = functional.conv2d(x, conv, bias, stride=stride).relu()
        x = functional.batch_norm(x, None, None, scale, shift, training=True)
    return functional.linear(x.flatten(1), values[16], values[17])


def maml_pytorch_mini_imagenet(params: Params, x: Tensor) -> Tensor:
    values = list(params.values())
    for n, stride in enumerate((2, 2, 2, 1)):
        conv, bias, scale, shift = values[4 * n : 4 * n + 4]
        x = functional.conv2d(x, conv, bias).relu()
        x = functional.batch_norm(x, None, None, scale, shift, training=True)
        x = functional.max_pool2d(x, 2, stride)
    return functional.linear(x.flatten(1), values[16], values[17])


NETWORKS = {
    "l2l-omniglot-fc": (omniglot_fc, (1, 28, 28)),
    "l2l-omniglot-cnn": (omniglot_cnn, (1, 28, 28)),
    "l2l-cnn4": (cnn4, (3, 84, 84)),
    "l2l-resnet12": (resnet12, (3, 84, 84)),
    "torchmeta-conv4": (torchmeta_conv4, (1, 28, 28)),
    "maml-pytorch-omniglot": (maml_pytorch_omniglot, (1, 28, 28)),
    "maml-pytorch-mini-imagenet": (maml_pytorch_mini_imagenet, (3, 84, 84)),
}
SMALL = {name: one for name, one in NETWORKS.items() if name != "l2l-resnet12"}

BLOCK = [("normalize.weight", (64,)), ("normalize.bias", (64,)), ("conv.weight", (64, 64, 3, 3))]
FIRST = {
    "l2l-omniglot-fc": [
        ("features.1.0.normalize.weight", (256,)),
        ("features.1.0.normalize.bias", (256,)),
        ("features.1.0.linear.weight", (256, 784)),
        ("features.1.0.linear.bias", (256,)),
    ],
    "l2l-omniglot-cnn": [
        ("base.0.normalize.weight", (64,)),
        ("base.0.normalize.bias", (64,)),
        ("base.0.conv.weight", (64, 1, 3, 3)),
        ("base.0.conv.bias", (64,)),
    ],
    "l2l-cnn4": [
        ("features.0.normalize.weight", (64,)),
        ("features.0.normalize.bias", (64,)),
        ("features.0.conv.weight", (64, 3, 3, 3)),
        ("features.0.conv.bias", (64,)),
    ],
    "l2l-resnet12": [
        ("features.layer1.0.conv1.weight", (64, 3, 3, 3)),
        ("features.layer1.0.bn1.weight", (64,)),
        ("features.layer1.0.bn1.bias", (64,)),
        ("features.layer1.0.conv2.weight", (64, 64, 3, 3)),
    ],
    "torchmeta-conv4": [
        ("features.layer1.conv.weight", (64, 1, 3, 3)),
        ("features.layer1.conv.bias", (64,)),
        ("features.layer1.norm.weight", (64,)),
        ("features.layer1.norm.bias", (64,)),
    ],
}
"""The first parameters there, in order; learn2learn's were read off its own modules."""

LAST = {
    "l2l-omniglot-fc": ("classifier", 64, 18),
    "l2l-omniglot-cnn": ("classifier", 64, 18),
    "l2l-cnn4": ("classifier", 1600, 18),
    "l2l-resnet12": ("classifier", 640, 50),
    "torchmeta-conv4": ("classifier", 64, 18),
    "maml-pytorch-omniglot": ("head", 64, 18),
    "maml-pytorch-mini-imagenet": ("head", 800, 18),
}
"""The head, its width, and the number of tensors."""


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_published_architecture(name: str) -> None:
    written_out, shape = NETWORKS[name]
    model = build(name, shape)
    generator = torch.Generator().manual_seed(0)
    params = {
        key: p + 0.05 * torch.randn(p.shape, generator=generator)
        for key, p in model.initial().items()
    }
    x = torch.randn(3, *shape, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(model(params, x), written_out(params, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_theirs(name: str) -> None:
    shapes = [(key, tuple(p.shape)) for key, p in build(name, NETWORKS[name][1]).initial().items()]
    assert shapes[:4] == FIRST.get(name, shapes[:4])
    head, width, count = LAST[name]
    assert shapes[-2:] == [(f"{head}.weight", (5, width)), (f"{head}.bias", (5,))]
    assert len(shapes) == count


def test_shapes_of_maml_pytorch_are_those_of_its_configuration() -> None:
    def block(inputs: int, outputs: int, side: int) -> list[tuple[int, ...]]:
        return [(outputs, inputs, side, side), (outputs,), (outputs,), (outputs,)]

    for name, hidden, channels, last, width in (
        ("maml-pytorch-omniglot", 64, 1, 2, 64),
        ("maml-pytorch-mini-imagenet", 32, 3, 3, 800),
    ):
        expected = block(channels, hidden, 3) + 2 * block(hidden, hidden, 3)
        expected += [*block(hidden, hidden, last), (5, width), (5,)]
        model = build(name, NETWORKS[name][1])
        assert [tuple(p.shape) for p in model.initial().values()] == expected


@pytest.mark.parametrize("name", SMALL)
def test_it_adapts_and_ekfac_knows_its_layers(name: str) -> None:
    shape = NETWORKS[name][1]
    model = build(name, shape)
    x, y = torch.rand(5, *shape), torch.arange(5)
    theta = MAML(0.01, 1).adapt(
        model,
        lambda out, labels: functional.cross_entropy(out, labels, reduction="none"),
        model.initial(),
        x,
        y,
        torch.ones(5),
    )
    assert theta.keys() == model.initial().keys()
    assert Network.of(model.module, x).parameters.keys() == theta.keys()
    assert Head.of(model, shape).name == LAST[name][0]
    assert model.coupled


@pytest.mark.parametrize(
    ("name", "shape", "part"),
    [
        ("l2l-omniglot-cnn", (3, 28, 28), "is 1 but the tasks' inputs have shape [3, 28, 28]"),
        ("l2l-cnn4", (3, 8, 8), "leaves nothing of 8x8 images"),
        ("l2l-resnet12", (3, 32, 32), "leaves nothing of 32x32 images"),
        ("torchmeta-conv4", (1, 28), "have shape [1, 28]"),
        ("maml-pytorch-omniglot", (1, 8, 8), "leaves nothing of 8x8 images"),
        ("maml-pytorch-mini-imagenet", (1, 84, 84), "is 3 but the tasks' inputs"),
    ],
)
def test_images_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], part: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(name, shape)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_keys_change_the_network() -> None:
    assert len(build("l2l-omniglot-fc", (1, 4, 4), sizes=[8]).initial()) == 6
    assert len(build("l2l-omniglot-cnn", (1, 28, 28), layers=2, hidden=3).initial()) == 10
    strided = build("l2l-cnn4", (1, 28, 28), layers=3, hidden=3, in_channels=1, max_pool=False)
    assert strided.initial()["classifier.weight"].shape == (5, 3 * 16)
    wide = build("l2l-resnet12", (1, 32, 32), wider=False, avg_pool=False, in_channels=1)
    assert wide.initial()["classifier.weight"].shape == (5, 4 * 512)
    other = build("maml-pytorch-omniglot", (3, 28, 28), hidden=3, in_channels=3)
    assert other.initial()["head.weight"].shape == (5, 3)
