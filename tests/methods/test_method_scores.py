"""Methods from the command line to the report, and where they are refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from metaaudit.methods import METHODS
from metaaudit.reports.html import render_html
from metaaudit.reports.markdown import render_markdown
from metaaudit.runs.saved import SavedRun
from tests.small import Case, succeeds

SOLVING = ("task-if", "direct-if", "ekfac-if", "trak")


def solver(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text("utf-8"))["solver"]
    return found


def influences(run: Path) -> np.ndarray:
    with h5py.File(run / "scores.h5") as file:
        found: np.ndarray = file["task_influence"][()]
        return found


@pytest.mark.parametrize("method", METHODS)
def test_a_run_says_by_what_it_was_scored(trained_case: Case, method: str) -> None:
    run = trained_case.score("run", "--method", method)
    told = solver(run)
    assert told["method"] == method
    saved = SavedRun.open(run)
    page, text = render_html(saved), render_markdown(saved)
    assert ("influence here is" in text) == ("influence here is" in page) == (method != "task-if")
    if method != "task-if":
        assert method in text
    if method in SOLVING:
        assert told["solver"] and f"The method {method} solves for nothing" not in page
        assert "<dt>converged</dt>" in page
    else:
        assert told["solver"] is None and told["curvature"] is None and told["attempts"] == []
        assert f"The method {method} solves for nothing" in page
        assert "<dt>converged</dt>" not in page and "<dt>damping</dt>" not in page
    (planned,) = (
        line
        for line in succeeds(
            trained_case.cli(
                "score", "--run", trained_case.folder / "no", "--dry-run", "--method", method
            )
        ).stdout.splitlines()
        if line.startswith(("solve: ", "method: "))
    )
    named = "sampled-fisher by auto" if method == "task-if" else method
    assert planned.startswith(
        f"{'solve' if method in ('task-if', 'direct-if') else 'method'}: {named}"
    )


def test_the_option_wins_over_a_setting(trained_case: Case) -> None:
    run = trained_case.score("run", "--set", "influence.method=dot", "--method", "loss")
    assert solver(run)["method"] == "loss"
    with (run / "tasks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["outer_loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert [float(row["influence"]) for row in rows] == pytest.approx(losses, rel=1e-4)


def test_an_unknown_method_is_one_line(trained_case: Case) -> None:
    outcome = trained_case.cli("score", "--run", trained_case.run, "--method", "track")
    assert outcome.exit_code == 2
    assert "influence.method: got 'track'; expected" in outcome.error
    assert "did you mean 'trak'?" in outcome.error


def test_what_is_stored_is_used_again(trained_case: Case) -> None:
    for method, stages in (
        ("ekfac-if", ["EK-FAC at the adapted parameters"]),
        ("trak", ["margin gradients", "margin gradients of evaluation tasks"]),
        ("mts", ["learned weights of tasks", "learned weights of instances"]),
    ):
        dry = ("score", "--run", trained_case.run, "--dry-run", "--method", method)
        before = succeeds(trained_case.cli(*dry)).stdout.splitlines()
        first = influences(trained_case.score(f"{method} 1", "--method", method))
        after = succeeds(trained_case.cli(*dry)).stdout.splitlines()
        for stage in stages:
            assert f"{stage}: to compute" in before and f"{stage}: from the cache" in after
        again = influences(trained_case.score(f"{method} 2", "--method", method))
        np.testing.assert_array_equal(again, first)


def test_several_checkpoints_of_tracin_add_up(trained_case: Case) -> None:
    paths = [trained_case.checkpoint.name, "second.safetensors"]
    second = ("--set", f"checkpoint={paths[1]}", "--set", "training.seed=1")
    succeeds(trained_case.cli("train", *second))
    alone = [
        influences(
            trained_case.score(f"run {path}", "--method", "tracin", "--set", f"checkpoint={path}")
        )
        for path in paths
    ]
    listed = f"checkpoint=[{', '.join(paths)}]"
    both = trained_case.score("both", "--method", "tracin", "--set", listed)
    np.testing.assert_allclose(influences(both), alone[0] + alone[1], rtol=1e-5, atol=1e-12)
    assert solver(both)["learning_rate"] > 0


@pytest.mark.parametrize("method", ["ekfac-if", "direct-if"])
def test_a_network_that_ekfac_does_not_cover_is_refused_where_it_is_used(
    trained_case: Case, method: str
) -> None:
    (trained_case.folder / "odd.py").write_text(ODD)
    options = [
        *("--set", "model={factory: 'odd:network', path: '.'}"),
        *("--set", "checkpoint=odd.safetensors"),
    ]
    succeeds(trained_case.cli("train", *options))
    outcome = trained_case.cli("score", "--run", trained_case.run, "--method", method, *options)
    if method == "direct-if":
        succeeds(outcome)
        return
    assert outcome.exit_code == 2
    assert "EK-FAC does not cover" in outcome.error


ODD = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return self.last(self.scale * x.flatten(1))

def network():
    return Scaled()
"""
