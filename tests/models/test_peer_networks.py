"""Networks of other code bases: names, shapes and outputs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metaaudit.bilevel import Objective, TaskTensors
from metaaudit.config.model import MODELS
from metaaudit.curvature import Network
from metaaudit.errors import ModelError
from metaaudit.learners import MAML
from metaaudit.models import Head, Model, build_model
from metaaudit.models.build import BUILDERS

Params = dict[str, Tensor]


def build(name: str, shape: tuple[int, ...], **keys: Any) -> Model:
    return build_model(configured(name, **keys), input_shape=shape, ways=5)


def configured(name: str, **keys: Any) -> Any:
    return MODELS[name].model_validate({"name": name, **keys})


@cache
def untried(name: str, **keys: Any) -> Model:
    """The network for its own data set, without the trial, which is long for a large one."""
    config = configured(name, **keys)
    torch.manual_seed(0)
    module = BUILDERS[type(config)](config, NETWORKS[name][1])
    return Model(module, "", running=config.statistics == "running")


def tried(name: str) -> tuple[Model, tuple[int, ...]]:
    """A network that passed the trial, and the shape of its inputs: a small one if it is large."""
    if name == "l2l-resnet12":
        shape: tuple[int, ...] = (1, 16, 16)
        return build(name, shape, in_channels=1, wider=False, avg_pool=False), shape
    shape = NETWORKS[name][1]
    return build(name, shape), shape


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
LAST = {"maml-pytorch-omniglot": "head", "maml-pytorch-mini-imagenet": "head"}
"""Name of the head, where it is not ``classifier``."""

THEIRS: dict[str, dict[str, list[int]]] = json.loads(
    Path(__file__).with_name("peer_networks.json").read_text(encoding="utf-8")
)
"""Names and shapes of the parameters there, in order, for five classes."""


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_published_architecture(name: str) -> None:
    written_out, shape = NETWORKS[name]
    model = untried(name)
    generator = torch.Generator().manual_seed(0)
    params = {
        key: p.double() + 0.05 * torch.randn(p.shape, generator=generator)
        for key, p in model.initial().items()
    }
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = written_out(params, x)
        torch.testing.assert_close(model(params, x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_theirs(name: str) -> None:
    shapes = {key: list(p.shape) for key, p in untried(name).initial().items()}
    if name in LAST:  # numbered there
        assert list(shapes.values()) == list(THEIRS[name].values())
    else:
        assert list(shapes.items()) == list(THEIRS[name].items())


def test_a_state_dict_has_the_second_name_of_omniglot_cnn() -> None:
    model = untried("l2l-omniglot-cnn", statistics="running")
    state = model.module.state_dict(keep_vars=True)
    for name in (*model.initial(), *model.running):
        if name.startswith("base."):
            assert state[name] is state[f"features.1.{name.removeprefix('base.')}"]
    assert len(state) == 2 * 4 * 6 + 2
    model.module.load_state_dict({name: torch.ones_like(value) for name, value in state.items()})
    assert all(bool((p == 1).all()) for p in model.initial().values())


def spread(model: Model, end: str) -> list[tuple[float, float, float]]:
    """Mean, standard deviation and largest magnitude of each parameter whose name ends so."""
    kept = [p for name, p in model.initial().items() if name.endswith(end)]
    return [(float(p.mean()), float(p.std()), float(p.abs().max())) for p in kept]


INITIAL = [
    # network, parameters, standard deviation by their order, largest magnitude in deviations
    ("l2l-omniglot-fc", "linear.weight", [0.0088] * 4, 0.02),
    ("l2l-omniglot-fc", "classifier.weight", [0.0088], 0.02),
    ("l2l-omniglot-cnn", "conv.weight", [(2 / (9 * 65)) ** 0.5, *[(2 / (9 * 128)) ** 0.5] * 3], 1),
    ("l2l-omniglot-cnn", "classifier.weight", [1.0], 9),
    ("l2l-cnn4", "conv.weight", [(2 / (9 * 67)) ** 0.5, *[(2 / (9 * 128)) ** 0.5] * 3], 1),
    ("l2l-cnn4", "classifier.weight", [(2 / 1605) ** 0.5], 1),
    ("l2l-resnet12", "conv1.weight", [(2 / 9 / n) ** 0.5 for n in (64, 160, 320, 640)], 9),
    ("torchmeta-conv4", "conv.weight", [(1 / 27) ** 0.5, *[(1 / 27 / 64) ** 0.5] * 3], 1),
    ("maml-pytorch-omniglot", "head.weight", [(2 / 64) ** 0.5], 9),
    ("maml-pytorch-mini-imagenet", "conv.weight", [(2 / 27) ** 0.5, *[(2 / 288) ** 0.5] * 3], 9),
]
"""Deviations of a truncated normal, Xavier's and Kaiming's distributions, in closed form."""


@pytest.mark.parametrize(("name", "end", "deviations", "largest"), INITIAL)
def test_initial_weights_are_drawn_as_theirs(
    name: str, end: str, deviations: list[float], largest: float
) -> None:
    found = spread(untried(name), end)
    for (mean, deviation, most), expected in zip(found, deviations, strict=True):
        assert abs(mean) < 0.25 * expected
        assert deviation == pytest.approx(expected, rel=0.15)
        assert most <= largest


@pytest.mark.parametrize("name", ["l2l-omniglot-cnn", "l2l-cnn4"])
def test_scales_of_learn2learns_normalisations_are_uniform(name: str) -> None:
    for mean, deviation, _ in spread(untried(name), "normalize.weight"):
        assert abs(mean - 0.5) < 0.15 and abs(deviation - 12**-0.5) < 0.06


@pytest.mark.parametrize("name", NETWORKS)
def test_all_biases_but_torchs_own_start_at_zero(name: str) -> None:
    own = {
        "torchmeta-conv4": ("conv.bias", "classifier.bias"),
        "l2l-resnet12": ("classifier.bias",),
    }
    for key, p in untried(name).initial().items():
        if key.endswith("bias"):
            assert bool((p == 0).all()) != key.endswith(own.get(name, ("none",))), key


@pytest.mark.parametrize("name", NETWORKS)
def test_it_adapts_and_ekfac_knows_its_layers(name: str) -> None:
    model, shape = tried(name)
    x, y = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(5)
    objective = Objective(model, MAML(0.01, 1))
    theta = objective.adapt(model.initial(), torch.ones(5), TaskTensors(x, y, x, y))
    assert theta.keys() == model.initial().keys()
    for key, value in model.initial().items():  # a bias that is normalised away has no gradient
        assert key.endswith("bias") or not torch.equal(theta[key], value), key
    assert Network.of(model.module, x).parameters.keys() == theta.keys()
    assert Head.of(model, shape).name == LAST.get(name, "classifier")
    assert model.coupled and not model.running


@pytest.mark.parametrize(
    ("name", "shape", "part"),
    [
        ("l2l-omniglot-cnn", (3, 28, 28), "is l2l-omniglot-cnn but the tasks' inputs have shape"),
        ("l2l-omniglot-cnn", (784,), "[784]; expected images [1, height, width]"),
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
    other = build("maml-pytorch-omniglot", (3, 28, 28), hidden=3, in_channels=3)
    assert other.initial()["head.weight"].shape == (5, 3)
