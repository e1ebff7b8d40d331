"""Checkpoints that ``metaaudit prune`` edits by influence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from metaaudit.inputs.checkpoints import read_checkpoint
from metaaudit.runs.saved import SavedRun
from tests.pruning.flagged import (
    NOISY,
    audited_case,
    change_manifest,
    copied,
    flag,
    plan_in,
    refused,
)
from tests.small import Case, cli, succeeds, write_case

Args = tuple[object, ...]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return audited_case(tmp_path_factory.mktemp("audited"))


@pytest.fixture
def case(audited: Case, tmp_path: Path) -> Case:
    return copied(audited, tmp_path)


def edit(case: Case, *options: object, name: str = "edited.safetensors") -> Path:
    """Edits the checkpoint of a case, which must succeed."""
    path = case.folder / name
    drop = options or NOISY
    succeeds(cli("prune", case.run, *drop, "--edit-checkpoint", path))
    return path


def test_an_edited_checkpoint_says_so_and_can_be_scored(case: Case) -> None:
    path = edit(case)
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    with safe_open(str(case.checkpoint), "pt") as file:
        original = file.metadata()
    assert metadata["recipe"] == original["recipe"]
    assert "fingerprint" not in metadata
    note = json.loads(metadata["edited"])
    manifest = json.loads((case.run / "manifest.json").read_text())
    assert note["removed"] == [item["task_id"] for item in plan_in(case.run)["items"]]
    assert note["source_sha256"] == manifest["checkpoints"][0]["sha256"]
    assert note["damping"] == manifest["solver"]["damping"]
    assert note["converged"] is True
    before, after = (read_checkpoint(one).weights for one in (case.checkpoint, path))
    assert before.keys() == after.keys()
    assert all(after[key].dtype == before[key].dtype for key in before)
    assert any(not np.array_equal(after[key], before[key]) for key in before)
    again = case.score("again", "--set", f"checkpoint={path}")
    assert SavedRun.open(again).manifest["checkpoints"][0]["sha256"] != note["source_sha256"]


def test_the_same_edit_gives_the_same_bytes(case: Case) -> None:
    assert edit(case).read_bytes() == edit(case, name="again.safetensors").read_bytes()


def test_an_edited_checkpoint_is_trained_less_on_what_went(case: Case) -> None:
    path = edit(case)
    (gone,) = (item["task_id"] for item in plan_in(case.run)["items"])
    again = SavedRun.open(case.score("again", "--set", f"checkpoint={path}"))
    losses = [
        next(row.outer_loss for row in run.tasks if row.task_id == gone)
        for run in (SavedRun.open(case.run), again)
    ]
    assert losses[1] > losses[0]


def test_instances_are_removed_from_a_checkpoint_too(case: Case) -> None:
    options = ("--drop", "instances", "--by", "mislabel_score", "--max-fraction", 1)
    note = json.loads(read_checkpoint(edit(case, *options)).metadata["edited"])
    places = [[item["task_id"], item["set"], item["index"]] for item in plan_in(case.run)["items"]]
    assert note["removed"] == places
    assert {place[1] for place in places} == {"support", "query"}


KINDS: dict[str, dict[str, Any]] = {
    "sampled-fisher": {},
    "task-fisher": {"influence.curvature": "task-fisher"},
    "ekfac": {"influence.curvature": "ekfac"},
    "implicit": {"influence.derivative": "implicit"},
    "fomaml": {"learner.name": "fomaml"},
    "reptile": {"learner.name": "reptile"},
    "imaml": {"learner": {"name": "imaml", "inner_lr": 0.1, "proximity": 2.0, "steps": 9}},
    "meta-sgd": {"learner": {"name": "meta-sgd", "inner_lr": 0.1, "steps": 1}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drop", ["tasks", "instances"])
def test_every_learner_and_curvature_can_be_edited(tmp_path: Path, kind: str, drop: str) -> None:
    case = write_case(tmp_path / "case", {"training.epochs": 1, **KINDS[kind]})
    succeeds(case.cli("train"))
    flag(case.score())
    by = "noisy" if drop == "tasks" else "mislabel_score"
    path = case.folder / "edited.safetensors"
    options = ("--drop", drop, "--by", by, "--max-fraction", 1, "--edit-checkpoint", path)
    told = succeeds(cli("prune", case.run, *options)).stderr
    (line,) = (line for line in told.splitlines() if line.startswith("gradients: "))
    assert "from the cache" in line
    case.score("again", "--set", f"checkpoint={path}")


def scored_by(manifest: dict[str, Any], method: str) -> None:
    """A run by another method, which does not read all keys."""
    manifest["config"]["influence"] = {"method": method}


UNEDITABLE: dict[str, tuple[Callable[[dict[str, Any]], object], Args, str]] = {
    "several checkpoints": (
        lambda manifest: manifest["checkpoints"].append(manifest["checkpoints"][0]),
        NOISY,
        "would have to choose among the 2 checkpoints",
    ),
    "no curvature": (
        lambda manifest: scored_by(manifest, "dot"),
        NOISY,
        "was scored by influence.method: dot",
    ),
    "another curvature than the total Hessian's": (
        lambda manifest: scored_by(manifest, "direct-if"),
        NOISY,
        "was scored by influence.method: direct-if, which does not solve with the total Hessian",
    ),
    "no transpose": (
        lambda manifest: manifest["config"]["influence"].update(
            derivative="implicit", inner={"inverse": "cg"}
        ),
        ("--drop", "instances", "--by", "mislabel_score", "--max-fraction", 1),
        "influence.inner.inverse: cg",
    ),
    "another checkpoint": (
        lambda manifest: manifest["checkpoints"][0].update(sha256="0" * 64),
        NOISY,
        "its checkpoint has changed on disk",
    ),
    "other data": (
        lambda manifest: manifest["data"]["train"].update(sha256="0" * 64),
        NOISY,
        "its training tasks have changed on disk",
    ),
}


@pytest.mark.parametrize(("change", "options", "part"), UNEDITABLE.values(), ids=UNEDITABLE)
def test_runs_whose_checkpoint_cannot_be_edited(
    case: Case, change: Callable[[dict[str, Any]], object], options: Args, part: str
) -> None:
    change_manifest(case, change)
    assert part in refused(case, *options, "--edit-checkpoint", case.folder / "new.safetensors")


def test_a_plan_that_changes_labels_edits_no_checkpoint(case: Case) -> None:
    succeeds(cli("prune", case.run, "--relabel", "--max-fraction", 1))
    options = ("--from-plan", case.run / "prune.json", "--edit-checkpoint")
    assert "cannot follow a changed label" in refused(case, *options, case.folder / "n.safetensors")
