"""The sample configurations and the README's are true: they load, and they run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from metaaudit.config import load_config
from metaaudit.fidelity.experiments import experiment
from metaaudit.inputs.checkpoints import read_checkpoint
from metaaudit.inputs.episodes import write_episodes
from tests.small import DATA, cli, digits, succeeds
from tests.written import divided, tiny_imagenet, write_metaoptnet, write_mini_imagenet

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "sample_configs"
SAMPLES = sorted(path for path in FOLDER.rglob("*.yaml"))

Overrides = dict[str, Any]

TRAINED = {"training.epochs": 1, "training.batch": 3, "mislabel.folds": 3}
SAMPLED = {
    **TRAINED,
    "tasks.train.tasks": 6,
    "tasks.eval.tasks": 2,
    "tasks.episode.shots": 1,
    "tasks.episode.queries": 1,
}
INSTANCES = {"digits/metaaudit.yaml": 6 * 3 * 8, "ci/metaaudit.yaml": 8 * 12}
"""Of the training tasks, where they are not those of ``SAMPLED``."""


def omniglot(_: Path) -> Overrides:
    return SAMPLED | {"tasks.root": real("omniglot"), "tasks.image.size": 28}


def mnist(_: Path) -> Overrides:
    return SAMPLED | {"tasks.root": real("mnist")}


def labelled(_: Path) -> Overrides:
    images = real("mnist") / "t10k-images-idx3-ubyte.gz"  # the smaller file stands for both
    return {
        "tasks.train": images,
        "tasks.eval": images,
        "tasks.train_size": 60,
        "tasks.eval_size": 20,
        "tasks.batch": 10,
        "training.epochs": 1,
    }


def cleaning(folder: Path) -> Overrides:
    subprocess.run(
        [sys.executable, FOLDER / "data_cleaning" / "write_digits.py", folder], check=True
    )
    return {
        "tasks.train": folder / "train.npz",
        "tasks.eval": folder / "clean.npz",
        "tasks.train_size": 60,
        "tasks.batch": 10,
        "training.epochs": 5,
        "influence.mts.epochs": 1,
    }


def mini_imagenet(folder: Path) -> Overrides:
    real("tiny-imagenet")
    write_mini_imagenet(folder / "data", divided(tiny_imagenet(84, 15, 4), (1, 1, 1)))
    smaller = {"tasks.image.size": 32, "model.hidden": 8}  # 84 would take a minute
    return SAMPLED | smaller | {"tasks.root": folder / "data"}


def fc100(folder: Path) -> Overrides:
    real("tiny-imagenet")
    write_metaoptnet(folder / "data", divided(tiny_imagenet(32, 15, 4), (1, 1, 1)))
    return SAMPLED | {"tasks.root": folder / "data"}


def own_tasks(_: Path) -> Overrides:
    return TRAINED | {"tasks.args.n_train": 6, "tasks.args.n_eval": 2}


def episodes(folder: Path) -> Overrides:
    for name, task_set in zip(("train", "eval"), digits(), strict=True):
        write_episodes(folder / f"{name}.npz", task_set)
    return TRAINED | {f"tasks.{name}": folder / f"{name}.npz" for name in ("train", "eval")}


PREPARED: dict[str, Callable[[Path], Overrides]] = {
    "ci/metaaudit.yaml": episodes,
    "data_cleaning/learned_selection.yaml": cleaning,
    "digits/metaaudit.yaml": own_tasks,
    "ekfac.yaml": omniglot,
    "fc100.yaml": fc100,
    "labelled.yaml": labelled,
    "learn2learn.yaml": omniglot,
    "mini_imagenet.yaml": mini_imagenet,
    "mnist.yaml": mnist,
    "omniglot.yaml": omniglot,
    "omniglot_exact.yaml": omniglot,
    "own_model/metaaudit.yaml": omniglot,
}
"""What each sample is run with: a function that writes its data where it has to be written."""

PAPER = sorted(str(path.relative_to(FOLDER)) for path in (FOLDER / "paper").glob("*.yaml"))
"""Experiments, which take minutes; each kind has tests of its own."""


def real(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {name} at {DATA / name} (set METAAUDIT_DATA)")
    return (DATA / name).resolve()


def options(overrides: Overrides) -> list[str]:
    return [
        part
        for key, value in overrides.items()
        for part in (
            "--set",
            f"{key}={json.dumps(str(value) if isinstance(value, Path) else value)}",
        )
    ]


def as_learn2learn_saves(weights: dict[str, torch.Tensor], path: Path) -> None:
    """A state dict of learn2learn's MAML around its OmniglotCNN: every tensor twice."""
    named = {}
    for name, tensor in weights.items():
        named[f"module.{name}"] = tensor
        if name.startswith("base."):
            named[f"module.features.1.{name.removeprefix('base.')}"] = tensor
    for block in range(4):
        for place in ("module.base", "module.features.1"):
            norm = f"{place}.{block}.normalize"
            named |= {f"{norm}.running_mean": torch.zeros(64)}
            named |= {f"{norm}.running_var": torch.ones(64)}
            named |= {f"{norm}.num_batches_tracked": torch.tensor(9)}
    assert len(named) == 58
    torch.save(named, path)


def test_every_sample_has_a_test() -> None:
    configurations = {str(path.relative_to(FOLDER)) for path in SAMPLES}
    assert configurations == {*PREPARED, *PAPER}


@pytest.mark.parametrize("name", PAPER)
def test_every_experiment_of_the_paper_can_be_run(name: str) -> None:
    config = load_config(FOLDER / name)
    for one in config.evaluate.experiments:
        assert callable(experiment(one.kind))
    command = f"metaaudit evaluate sample_configs/{name} --run "
    assert command in (FOLDER / name).read_text("utf-8")


@pytest.mark.parametrize("name", [*PREPARED, *PAPER])
def test_sample_loads(name: str) -> None:
    load_config(FOLDER / name)


@pytest.mark.parametrize("name", PREPARED)
def test_sample_trains_validates_and_scores(name: str, tmp_path: Path) -> None:
    overrides = PREPARED[name](tmp_path)
    trained = tmp_path / "small.safetensors"
    chosen = options({**overrides, "checkpoint": trained})
    succeeds(cli("train", FOLDER / name, *chosen))
    if name == "learn2learn.yaml":
        peer = tmp_path / "maml_omniglot.pt"
        as_learn2learn_saves(read_checkpoint(trained).weights, peer)
        chosen = options({**overrides, "checkpoint": peer})
    lines = succeeds(cli("validate", FOLDER / name, *chosen)).stdout.splitlines()
    assert lines[-1] == "ok"
    without_gate = ("--fail-on", "none")
    succeeds(cli("score", FOLDER / name, "--run", tmp_path / "run", *without_gate, *chosen))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    tasks = manifest["coverage"]["tasks"]
    assert manifest["coverage"]["instances"] == INSTANCES.get(name, 60)
    assert tasks == (8 if name.startswith("ci/") else 6)


def test_the_workflow_is_yaml_and_calls_commands_that_are_there() -> None:
    job = yaml.safe_load((FOLDER / "ci" / "workflow.yml").read_text("utf-8"))["jobs"]["metaaudit"]
    commands = [step["run"].split() for step in job["steps"] if "run" in step]
    called = {words[1] for words in commands if words[0] == "metaaudit"}
    assert called == {"validate", "score", "report"}
    for command in called:
        assert cli(command, "--help").exit_code == 0


def test_the_readmes_configurations_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    few_shot, labelled = (text for text in blocks if text.startswith("model:"))
    path = tmp_path / "metaaudit.yaml"
    path.write_text(few_shot, encoding="utf-8")
    assert load_config(path).training.weight_decay == 0.005
    path.write_text(labelled, encoding="utf-8")
    assert not load_config(path).adapts


def test_the_readmes_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
