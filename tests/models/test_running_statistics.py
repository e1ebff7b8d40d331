"""Batch normalisation by running statistics: as torch's evaluation mode, and never changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from metaaudit.config.model import Conv4Config, FactoryConfig, MlpConfig
from metaaudit.curvature import Network
from metaaudit.errors import ModelError
from metaaudit.models import Head, Model, build_model

SHAPE = (1, 16, 16)


def network() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 14 * 14, 4)
    )
    module(torch.randn(20, *SHAPE))  # statistics to track
    return module.double()


def test_equals_evaluation_mode() -> None:
    module = network()
    expected = copy.deepcopy(module).eval()
    model = Model(module, "", running=True)
    x = torch.randn(5, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(model(model.initial(), x), expected(x))
    assert model.running == ("1.running_mean", "1.running_var")
    assert set(model.constants()) == set(model.running)
    assert not model.coupled


def test_instance_normalisation_that_tracks_equals_evaluation_mode() -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(1, affine=True, track_running_stats=True)
    module = nn.Sequential(norm, nn.Flatten(), nn.Linear(256, 4)).double()
    x = torch.randn(5, *SHAPE, dtype=torch.float64) + 2
    module(x)
    expected = copy.deepcopy(module).eval()
    model = Model(module, "", running=True)
    torch.testing.assert_close(model(model.initial(), x), expected(x))
    assert model.running == ("0.running_mean", "0.running_var")


def test_an_output_depends_on_its_own_input_alone() -> None:
    x = torch.randn(5, *SHAPE, dtype=torch.float64)
    for running in (True, False):
        model = Model(network(), "", running=running)
        alone = torch.equal(model(model.initial(), x[:2]), model(model.initial(), x)[:2])
        assert alone == running == (not model.coupled)


def test_statistics_never_change() -> None:
    model = Model(network(), "", running=True)
    before = {name: buffer.clone() for name, buffer in model.constants().items()}
    x = torch.randn(3, 5, *SHAPE, dtype=torch.float64)

    def loss(params, x):
        return model(params, x).square().mean()

    slopes = vmap(grad(loss), in_dims=(None, 0))(model.initial(), x)
    assert all(bool(slope.isfinite().all()) for slope in slopes.values())
    model.module.train()
    model(model.initial(), x[0])
    assert all(torch.equal(before[name], buffer) for name, buffer in model.constants().items())


def test_ekfac_knows_the_layers() -> None:
    model = Model(network(), "", running=True)
    found = Network.of(model.module, torch.zeros(2, *SHAPE, dtype=torch.float64))
    assert found.parameters.keys() == model.initial().keys()


def test_a_cut_network_sees_statistics_that_are_loaded_later() -> None:
    model = Model(network(), "", running=True)
    features = Head.of(model, SHAPE).features
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    before = features(model.initial(), x)
    dict(model.module.named_buffers())["1.running_mean"].fill_(3.0)
    assert not torch.allclose(before, features(model.initial(), x))


def test_a_network_that_tracks_none_gets_them_to_be_loaded() -> None:
    config = Conv4Config(name="conv4", hidden=4, statistics="running")
    model = build_model(config, input_shape=SHAPE, ways=5)
    assert len(model.running) == 8
    assert float(model.constants()["blocks.0.norm.running_var"].sum()) == 4.0


@pytest.mark.parametrize(
    "config",
    [
        MlpConfig(name="mlp", statistics="running"),
        Conv4Config(name="conv4", norm="group", statistics="running"),
    ],
)
def test_without_batch_normalisation_there_are_none(config: MlpConfig | Conv4Config) -> None:
    with pytest.raises(ModelError, match=r"model\.statistics: is running but the model has no"):
        build_model(config, input_shape=SHAPE, ways=5)


def test_made_statistics_are_typed_as_the_network() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False)).double()
    constants = Model(module, "", running=True).constants()
    assert [(name, value.dtype, value[0].item()) for name, value in constants.items()] == [
        ("1.running_mean", torch.float64, 0.0),
        ("1.running_var", torch.float64, 1.0),
    ]


FACTORY = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.BatchNorm1d(4), nn.Linear(4, 5))
"""


@pytest.mark.parametrize(("statistics", "names"), [("batch", []), ("running", ["mean", "var"])])
def test_they_are_asked_for_in_a_factorys_section_too(
    tmp_path: Path, statistics: Literal["batch", "running"], names: list[str]
) -> None:
    (tmp_path / "own_running.py").write_text(FACTORY, encoding="utf-8")
    config = FactoryConfig(factory="own_running:build", path=tmp_path, statistics=statistics)
    model = build_model(config, input_shape=SHAPE, ways=5)
    assert model.running == tuple(f"2.running_{name}" for name in names)
    assert model.coupled == (statistics == "batch")


def test_only_batch_normalisation_couples() -> None:
    for norm, coupled in (("batch", True), ("group", False), ("none", False)):
        config = Conv4Config(name="conv4", hidden=4, norm=norm)
        assert build_model(config, input_shape=SHAPE, ways=5).coupled == coupled
