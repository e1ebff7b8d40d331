"""Scoring with every signal of wrong labels, with chosen inner steps, with several checkpoints."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import pytest

from metaaudit.config.mislabel import Signal
from metaaudit.inputs.checkpoints import read_checkpoint, write_checkpoint
from tests.small import Case, cli, succeeds


def manifest(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return found


def array(run: Path, name: str) -> np.ndarray:
    with h5py.File(run / "scores.h5") as file:
        values: np.ndarray = file[name][()]
    return values


@pytest.mark.parametrize("signal", get_args(Signal))
def test_every_signal_ranks(trained_case: Case, signal: str) -> None:
    run = trained_case.score(signal, "--set", f"mislabel.signal={signal}")
    score, values = array(run, "instances/mislabel_score"), array(run, "instances/signal")
    assert len(np.unique(values)) > len(values) / 2
    assert (np.diff(score[np.argsort(values, kind="stable")]) >= 0).all()
    assert manifest(run)["config"]["mislabel"]["signal"] == signal
    if signal not in ("combined", "crossfit-margin"):
        plain = trained_case.score("plain")
        assert not np.allclose(values, array(plain, "instances/signal"))


def test_steps_of_cross_fitting(trained_case: Case) -> None:
    own, more, auto = (
        trained_case.score(str(steps), "--set", f"mislabel.steps={steps}")
        for steps in ("learner", 7, "auto")
    )
    assert manifest(own)["crossfit_steps"] == 2
    assert manifest(more)["crossfit_steps"] == 7
    assert manifest(auto)["crossfit_steps"] in (1, 2, 4, 8)
    assert not np.allclose(array(own, "instances/signal"), array(more, "instances/signal"))
    assert np.array_equal(array(own, "task_influence"), array(more, "task_influence"))
    again = trained_case.score("again", "--set", "mislabel.steps=auto")
    assert manifest(again)["cache"]["choice of steps"]["status"] == "hit"


@pytest.fixture
def two(trained_case: Case) -> Case:
    """A case with a second checkpoint, a little away from the first."""
    first = read_checkpoint(trained_case.checkpoint)
    moved = {name: tensor * 1.1 for name, tensor in first.weights.items()}
    write_checkpoint(trained_case.folder / "second.safetensors", moved, first.metadata)
    return trained_case


BOTH = ("--set", "checkpoint=[checkpoint.safetensors, second.safetensors]")


def test_several_checkpoints_are_averaged(two: Case) -> None:
    first = two.score("first")
    second = two.score("second", "--set", "checkpoint=second.safetensors")
    both = two.score("both", *BOTH)
    told = manifest(both)
    assert [one["path"] for one in told["checkpoints"]] == [
        str(two.checkpoint),
        str(two.folder / "second.safetensors"),
    ]
    losses = [manifest(run)["evaluation"]["mean_loss"] for run in (first, second)]
    assert told["evaluation"]["mean_loss"] == pytest.approx(np.mean(losses))
    assert [one["mean_loss"] for one in told["checkpoints"]] == losses
    assert "gradients of checkpoint 2" in told["timings_s"]
    loss = (array(first, "instances/loss") + array(second, "instances/loss")) / 2
    np.testing.assert_allclose(array(both, "instances/loss"), loss, rtol=1e-6)
    with (both / "tasks.csv").open() as file:
        spreads = [float(row["influence_spread"]) for row in csv.DictReader(file)]
    assert min(spreads) > 0
    with (first / "tasks.csv").open() as file:
        assert {row["influence_spread"] for row in csv.DictReader(file)} == {""}


def test_a_checkpoint_twice_is_as_good_as_once(two: Case) -> None:
    once = two.score("once")
    same = "checkpoint=[checkpoint.safetensors, checkpoint.safetensors]"
    twice = two.score("twice", "--set", same)
    for name in ("task_influence", "instances/influence", "instances/mislabel_score"):
        np.testing.assert_allclose(array(twice, name), array(once, name), rtol=1e-9, atol=1e-15)


def test_the_plan_tells_of_every_checkpoint(two: Case) -> None:
    two.score("first")
    told = succeeds(two.cli("score", "--run", two.run, "--dry-run", *BOTH)).stdout
    assert "gradients of checkpoint 1: from the cache" in told
    assert "gradients of checkpoint 2: to compute" in told
    chosen = two.cli("score", "--run", two.run, "--dry-run", "--set", "mislabel.steps=auto")
    assert "cross-fitting: after the choice of steps" in succeeds(chosen).stdout


def test_validate_and_report_tell_of_every_checkpoint(two: Case) -> None:
    told = succeeds(two.cli("validate", *BOTH)).stdout
    assert told.count("checkpoint: ") == told.count("fit: ") == 2
    run = two.score("both", *BOTH)
    page = two.folder / "report.html"
    succeeds(cli("report", run, "-f", f"html={page}"))
    assert "second.safetensors" in page.read_text(encoding="utf-8")


def test_training_writes_one_checkpoint(two: Case) -> None:
    outcome = two.cli("train", *BOTH)
    assert outcome.exit_code == 2
    assert "checkpoint: names 2 files" in outcome.error
