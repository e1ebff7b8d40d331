"""Checkpoints as other code bases write them, read into the networks that have their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from metaaudit.config import load_config
from metaaudit.errors import CheckpointError
from metaaudit.inputs.task_set import TaskSet
from metaaudit.loading import Weights, load_weights, prepare
from metaaudit.problem import Problem
from tests.small import WAYS, digits, succeeds, write_case

HIDDEN = 4
MODEL = {"name": "l2l-omniglot-cnn", "hidden": HIDDEN, "ways": WAYS}


class Block(nn.Module):
    """A block of learn2learn's order: the normalisation is registered first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm2d(HIDDEN)
        self.conv = nn.Conv2d(channels, HIDDEN, 3, stride=2, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.normalize(self.conv(inputs)).relu()
        return outputs


class OmniglotCNN(nn.Module):
    """learn2learn's layout: the blocks are there as ``base`` and as ``features.1``."""

    def __init__(self, ways: int = WAYS) -> None:
        super().__init__()
        self.base = nn.Sequential(*(Block(channels) for channels in (1, *[HIDDEN] * 3)))
        self.features = nn.Sequential(nn.Identity(), self.base)
        self.classifier = nn.Linear(HIDDEN, ways)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.classifier(self.features(inputs).mean((2, 3)))
        return outputs


def trained(ways: int = WAYS) -> OmniglotCNN:
    """A network with weights and statistics of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = OmniglotCNN(ways)
        for p in module.parameters():
            nn.init.normal_(p, 0.5, 0.5)
        module(torch.rand(20, 1, 8, 8))
    return module


def state(prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in trained().state_dict().items()}


def rates() -> dict[str, Tensor]:
    """learn2learn's MetaSGD has one for each parameter, beside the module."""
    return {
        f"lrs.{n}": torch.full_like(p, 0.1 * (n + 1)) for n, p in enumerate(trained().parameters())
    }


def prepared(
    folder: Path,
    content: Any,
    changes: dict[str, Any] | None = None,
    name: str = "weights.pt",
    **tasks: TaskSet,
) -> Problem:
    """A problem whose checkpoint is a file with that content."""
    folder.mkdir(exist_ok=True)
    if name.endswith(".safetensors"):
        safetensors.torch.save_file(
            {k: t.clone().contiguous() for k, t in content.items()}, folder / name
        )
    else:
        torch.save(content, folder / name)
    given = {"model": MODEL, "checkpoint": str(folder / name), **(changes or {})}
    return prepare(load_config(write_case(folder / "case", given, **tasks).config))


def check(problem: Problem, weights: Weights) -> None:
    """Outputs are those of the network that was saved."""
    expected, x = trained(), torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected.train(problem.config.model.statistics == "batch")
    with torch.no_grad():
        torch.testing.assert_close(
            problem.model(weights.params, x), expected(x), rtol=1e-4, atol=1e-5
        )


LAYOUTS: dict[str, Callable[[], Any]] = {
    "state dict": state,
    "MAML": lambda: state("module."),
    "DataParallel within a model": lambda: state("model.module."),
    "network beside an optimiser": lambda: {
        "epoch": 3,
        "network": state(),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    },
    "params": lambda: {"params": state(), "args": {"ways": 5, "name": "x"}},
    "model_state_dict": lambda: {"model_state_dict": state(), "loss": 0.3},
    "MetaSGD read for MAML": lambda: {**state("module."), **rates()},
    "float64": lambda: {name: tensor.double() for name, tensor in state("module.").items()},
    "no statistics": lambda: {n: t for n, t in state().items() if "running" not in n},
    "one name": lambda: {n: t for n, t in state("module.").items() if ".features." not in n},
    "the other name": lambda: {n: t for n, t in state("module.").items() if ".base." not in n},
    "older names": lambda: {
        name.replace("classifier", "linear"): t for name, t in state("net.").items()
    },
    "a list": lambda: {"params": [p.detach() for p in trained().parameters()]},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_a_state_dict(tmp_path: Path, layout: str) -> None:
    problem = prepared(tmp_path, LAYOUTS[layout]())
    weights = load_weights(problem)
    check(problem, weights)
    assert {tensor.dtype for tensor in weights.params.values()} == {torch.float32}
    assert len([line for line in weights.mapping if " -> " in line]) == 18


@pytest.mark.parametrize("layout", ["MAML", "MetaSGD read for MAML", "float64", "one name"])
def test_the_same_in_safetensors(tmp_path: Path, layout: str) -> None:
    problem = prepared(tmp_path, LAYOUTS[layout](), name="weights.safetensors")
    check(problem, load_weights(problem))


def test_what_is_stored_twice_is_said(tmp_path: Path) -> None:
    content = state("module.")
    assert len(content) == 58
    weights = load_weights(prepared(tmp_path, content))
    assert weights.mapping[0] == (
        "18 tensors by name below 'module.'; 24 statistics that this model does not use; "
        "16 stored twice"
    )
    assert weights.warnings == ()
    line = f"module.base.0.conv.weight -> base.0.conv.weight [{HIDDEN}, 1, 3, 3]"
    assert line in weights.mapping


def test_second_names_that_differ_are_refused(tmp_path: Path) -> None:
    content = state("module.")
    content["module.features.1.2.conv.bias"] = torch.ones(HIDDEN)
    with pytest.raises(CheckpointError, match=r"module\.features\.1\.2\.conv\.bias"):
        load_weights(prepared(tmp_path, content))


@pytest.mark.parametrize("layout", ["MAML", "float64", "older names"])
def test_running_statistics_come_from_the_file(tmp_path: Path, layout: str) -> None:
    changes = {"model": {**MODEL, "statistics": "running"}}
    problem = prepared(tmp_path, LAYOUTS[layout](), changes)
    check(problem, load_weights(problem))


def test_a_file_without_running_statistics_is_refused(tmp_path: Path) -> None:
    changes = {"model": {**MODEL, "statistics": "running"}}
    with pytest.raises(CheckpointError, match=r"missing base\.0\.normalize\.running_mean \[4\]"):
        load_weights(prepared(tmp_path, LAYOUTS["no statistics"](), changes))


def test_meta_sgd_has_its_rates(tmp_path: Path) -> None:
    changes = {"learner": {"name": "meta-sgd", "inner_lr": 0.3, "steps": 1}}
    problem = prepared(tmp_path, {**state("module."), **rates()}, changes)
    weights = load_weights(problem)
    names = [name for name in weights.params if not name.startswith("lrs.")]
    assert len(names) == 18
    for n, p in enumerate(weights.params[name] for name in names):
        assert weights.params[f"lrs.{n}"].shape == p.shape
        assert float(weights.params[f"lrs.{n}"].flatten()[0]) == pytest.approx(0.1 * (n + 1))
    with pytest.raises(CheckpointError, match=r"missing lrs\.0 \[4\]"):
        load_weights(prepared(tmp_path / "other", state("module."), changes))


@pytest.mark.parametrize("name", ["protonet", "ridge"])
def test_a_learner_that_computes_the_head_needs_none(tmp_path: Path, name: str) -> None:
    with_head, bare = trained().state_dict(), trained().base.state_dict()
    for number, content in enumerate(
        (with_head, {"embedding": bare, "head": {"scale": torch.ones(1)}})
    ):
        problem = prepared(tmp_path / str(number), content, {"learner": {"name": name}})
        weights = load_weights(problem)
        assert "classifier.weight" not in weights.params
        own = [line for line in weights.mapping if line.startswith("ridge.")]
        assert len(own) == (2 if name == "ridge" else 0)
        for key, tensor in bare.items():
            if f"base.{key}" in weights.params:
                assert torch.equal(weights.params[f"base.{key}"], tensor)
    assert weights.warnings == ("tensors of the checkpoint that are ignored: head.scale",)


def test_other_ways_are_named(tmp_path: Path) -> None:
    content = {f"module.{name}": t for name, t in trained(ways=20).state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(prepared(tmp_path, content))
    assert (
        f"wrong shape module.classifier.weight [20, {HIDDEN}] for [{WAYS}, {HIDDEN}], "
        f"module.classifier.bias [20] for [{WAYS}]"
    ) in str(caught.value)


def test_two_networks_need_the_users_word(tmp_path: Path) -> None:
    other = {f"ema_model.{name}": torch.zeros_like(t) for name, t in state().items()}
    content = {**state("model."), **other}
    with pytest.raises(CheckpointError) as caught:
        load_weights(prepared(tmp_path, content))
    for part in ("'model.'", "'ema_model.'", "rename"):
        assert part in str(caught.value)
    problem = prepared(tmp_path / "said", content, {"rename": {"model.": ""}})
    check(problem, load_weights(problem))
    case = write_case(
        tmp_path / "cli",
        {"model": MODEL, "checkpoint": "../weights.pt", "rename": {"model.": "", "no.": ""}},
    )
    outcome = case.cli("validate")
    assert outcome.exit_code == 2
    assert "rename: 'no.' is nothing in" in outcome.error
    outcome = case.cli("validate", "--set", 'rename={"model.": ""}')
    assert "mapping: 18 tensors by name" in succeeds(outcome).stdout


class Listed(nn.Module):
    """MAML-Pytorch's layout: parameters in one list, statistics in another."""

    def __init__(self) -> None:
        super().__init__()
        self.vars, self.vars_bn = nn.ParameterList(), nn.ParameterList()
        for shape in ((64, 1, 3, 3), *[(64, 64, 3, 3)] * 2, (64, 64, 2, 2)):
            for size in (shape, (64,), (64,), (64,)):
                self.vars.append(nn.Parameter(0.2 * torch.randn(size) + (len(size) == 1)))
            self.vars_bn.append(nn.Parameter(torch.randn(64), requires_grad=False))
            self.vars_bn.append(nn.Parameter(torch.rand(64) + 0.5, requires_grad=False))
        self.vars.extend([nn.Parameter(torch.randn(WAYS, 64)), nn.Parameter(torch.randn(WAYS))])

    def outputs(self, x: Tensor, *, batch: bool) -> Tensor:
        for n, stride in enumerate((2, 2, 2, 1)):
            conv, bias, scale, shift = self.vars[4 * n : 4 * n + 4]
            mean, variance = (t.clone() for t in self.vars_bn[2 * n : 2 * n + 2])
            x = functional.conv2d(x, conv, bias, stride=stride).relu()
            x = functional.batch_norm(x, mean, variance, scale, shift, training=batch)
        return functional.linear(x.flatten(1), self.vars[16], self.vars[17])


def larger(task_set: TaskSet) -> TaskSet:
    """Digits of 28x28 pixels."""
    images = task_set.pool.pixels.repeat(3, axis=2).repeat(3, axis=3)
    pixels = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return TaskSet(replace(task_set.pool, pixels=pixels), task_set.tasks)


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_parameters_in_a_list(tmp_path: Path, statistics: str, suffix: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Listed()
        x = torch.rand(6, 1, 28, 28)
    content = {f"net.{name}": p.detach() for name, p in network.state_dict().items()}
    model = {"name": "maml-pytorch-omniglot", "ways": WAYS, "statistics": statistics}
    train, evaluation = digits()
    problem = prepared(
        tmp_path,
        content,
        {"model": model},
        f"weights.{suffix}",
        train=larger(train),
        evaluation=larger(evaluation),
    )
    weights = load_weights(problem)
    with torch.no_grad():
        expected = network.outputs(x, batch=statistics == "batch")
        torch.testing.assert_close(problem.model(weights.params, x), expected, rtol=1e-3, atol=1e-3)
    assert weights.warnings == ()
    assert "net.vars.17 -> head.bias [3]" in weights.mapping
