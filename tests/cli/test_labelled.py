"""Labelled data and an ordinary classifier, through every command: real digits, planted errors."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from sklearn.datasets import load_digits

from metaaudit.methods import METHODS
from tests.small import Case, cli, run_content, succeeds

N_TRAIN, N_EVAL, WRONG = 640, 257, 48

SETTINGS: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [32], "ways": 10},
    "learner": {"name": "none"},
    "checkpoint": "checkpoint.safetensors",
    "tasks": {"format": "labelled", "train": "train.npz", "eval": "eval.npz", "batch": 32},
    "training": {"epochs": 15, "batch": 1, "lr": 0.01, "weight_decay": 0.005},
    "compute": {"device": "cpu"},
}

Ints = npt.NDArray[np.int64]


def digits() -> tuple[dict[str, Any], dict[str, Any], Ints]:
    """Training data with wrong labels, sorted by them, evaluation data, and which are wrong."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    ours, theirs = order[:N_TRAIN], order[N_TRAIN : N_TRAIN + N_EVAL]
    labels = y[ours].copy()
    wrong = rng.choice(N_TRAIN, WRONG, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, WRONG)) % 10
    by_class = np.argsort(labels, kind="stable")
    train = {"x": x[ours][by_class], "y": labels[by_class]}
    return train, {"x": x[theirs], "y": y[theirs]}, np.flatnonzero(np.isin(by_class, wrong))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A trained and scored case: read it, never write to it."""
    folder = tmp_path_factory.mktemp("labelled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAAUDIT_CACHE_DIR", str(folder / "cache"))
        case = Case(folder / "case")
        case.folder.mkdir()
        train, evaluation, _ = digits()
        np.savez(case.folder / "train.npz", **train)
        np.savez(case.folder / "eval.npz", **evaluation)
        case.config.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
        succeeds(case.cli("train"))
        case.score()
        yield case


@pytest.fixture
def case(scored: Case, tmp_path: Path) -> Case:
    """A case of the test's own."""
    return Case(Path(shutil.copytree(scored.folder, tmp_path / "case")))


def rows(run: Path, name: str) -> list[dict[str, str]]:
    with (run / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def position(row: dict[str, str]) -> int:
    return int(row["instance_id"].removeprefix("train.npz/"))


def test_validate_speaks_of_batches(case: Case) -> None:
    sheet = case.folder / "sheet.png"
    lines = succeeds(case.cli("validate", "--contact-sheet", sheet)).stdout.splitlines()
    assert lines[0] == "training tasks: 20, 640 instances; batches of 32"
    assert lines[1] == "evaluation tasks: 9, 257 instances; batches of 1, batches of 32"
    assert lines[2] == "classes: 10 in training, 10 in evaluation"
    (fit,) = (line for line in lines if line.startswith("fit"))
    assert fit.startswith("fit: accuracy 0.9")
    assert fit.endswith(" on 257 evaluation instances, chance 0.100")
    assert "learner: none" in lines
    assert not [line for line in lines if "support" in line or line.startswith("warning")]
    assert lines[-1] == "ok"
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_planted_labels_are_found_and_corrected(scored: Case) -> None:
    _, _, wrong = digits()
    instances = rows(scored.run, "instances")
    assert len(instances) == N_TRAIN
    assert {row["set"] for row in instances} == {"query"}
    worst = {position(row) for row in instances[:WRONG]}
    assert len(worst & set(wrong.tolist())) >= 0.85 * WRONG
    flagged = [row for row in instances if row["mislabeled"] == "true"]
    right = [row for row in flagged if position(row) in wrong]
    assert len(flagged) >= 15
    assert len(right) >= 0.9 * len(flagged)
    items = rows(scored.run, "items")
    assert {row["label"] for row in items} == set(map(str, range(10)))
    tasks = rows(scored.run, "tasks")
    assert len(tasks) == 20
    assert {row[name] for row in tasks for name in ("contradictory_q", "noisy_q")} == {"1.0"}
    every = [float(row["influence"]) for row in tasks]
    assert np.isfinite(every).all()


def test_nothing_is_fitted_to_parts_of_a_batch(scored: Case) -> None:
    manifest = json.loads((scored.run / "manifest.json").read_text(encoding="utf-8"))
    assert not [stage for stage in manifest["timings_s"] if "cross-fitting" in stage]
    assert manifest["config"]["mislabel"]["signal"] == "loss"


def test_instances_add_up_to_their_batch(scored: Case) -> None:
    sums: dict[str, float] = {}
    for row in rows(scored.run, "instances"):
        sums[row["task_id"]] = sums.get(row["task_id"], 0.0) + float(row["influence"])
    for row in rows(scored.run, "tasks"):
        assert sums[row["task_id"]] == pytest.approx(float(row["influence"]), rel=1e-3, abs=1e-6)


def test_the_same_bytes_twice(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    once = case.score("once")
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(case.folder / "other-cache"))
    assert run_content(case.score("twice")) == run_content(once)


def test_nothing_depends_on_how_many_batches_are_computed_at_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(case.folder / "other-cache"))
    other = case.score("other", "--set", "compute.task_batch=3")
    for name, key in (("tasks", "task_id"), ("instances", "instance_id")):
        ours, theirs = ({row[key]: row for row in rows(run, name)} for run in (case.run, other))
        assert ours.keys() == theirs.keys()
        for one, row in ours.items():
            found = float(theirs[one]["influence"])
            assert found == pytest.approx(float(row["influence"]), rel=1e-3, abs=1e-6)


def test_reports_say_what_the_tasks_are(scored: Case, tmp_path: Path) -> None:
    formats = ("html", "md", "json", "csv")
    options = [part for one in formats for part in ("-f", f"{one}={tmp_path / one}")]
    succeeds(cli("report", scored.run, *options))
    page = (tmp_path / "html").read_text(encoding="utf-8")
    for text in (page, (tmp_path / "md").read_text(encoding="utf-8")):
        assert "The tasks are batches of a labelled data set" in text
    assert "<h4>Batch " in page
    assert "Support set" not in page
    assert "Query set" not in page


@pytest.mark.parametrize("method", METHODS)
def test_every_method_scores_batches_and_instances(case: Case, method: str) -> None:
    small = ("--set", "tasks.train_size=96", "--set", "tasks.eval_size=40")
    mts = ("--set", "influence.mts.epochs=1") if method == "mts" else ()
    run = case.score(method, "--method", method, *small, *mts)
    for name, count in (("tasks", 3), ("instances", 96)):
        found = [float(row["influence"]) for row in rows(run, name)]
        assert len(found) == count
        assert np.isfinite(found).all()
        assert len(set(found)) > 1


@pytest.mark.parametrize("signal", ["margin", "self-influence"])
def test_other_signals(case: Case, signal: str) -> None:
    run = case.score(signal, "--set", f"mislabel.signal={signal}")
    _, _, wrong = digits()
    worst = {position(row) for row in rows(run, "instances")[:WRONG]}
    assert len(worst & set(wrong.tolist())) > 0.5 * WRONG  # by chance 4


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_prune_writes_labelled_data_that_train_reads(case: Case, suffix: str) -> None:
    out = case.folder / f"pruned{suffix}"
    drop = ("--drop", "instances", "--by", "mislabeled", "--max-fraction", 0.1)
    edited = case.folder / "edited.safetensors"
    lines = succeeds(
        cli("prune", case.run, *drop, "--apply", "--out", out, "--edit-checkpoint", edited)
    ).stdout.splitlines()
    gone = int(lines[0].split()[1])
    assert gone >= 15
    assert f"wrote {N_TRAIN - gone} instances: {out}" in lines
    assert edited.is_file()
    commands = [line.split() for line in lines if line.startswith("  metaaudit")]
    assert [words[1] for words in commands] == ["score", "train", "score"]
    again = [part for part in commands[1][3:] if part != "--set"]
    assert again[1] == f"tasks.train={out}"
    retrained = succeeds(case.cli("train", *(x for one in again for x in ("--set", one))))
    assert "evaluation accuracy 0.9" in retrained.stdout
    run = case.score("pruned-run", *(x for one in again for x in ("--set", one)))
    assert len(rows(run, "instances")) == N_TRAIN - gone


def test_relabelling_changes_the_labels_alone(case: Case) -> None:
    out = case.folder / "relabelled.npz"
    command = ("prune", case.run, "--relabel", "--max-fraction", 0.1, "--apply", "--out", out)
    succeeds(cli(*command))
    train, _, wrong = digits()
    with np.load(out) as file:
        place = [int(one.removeprefix("train.npz/")) for one in file["id"]]
        y = np.empty(N_TRAIN, dtype=np.int64)
        y[place] = file["y"]
        assert file["class_names"].tolist() == list(map(str, range(10)))
        np.testing.assert_array_equal(file["x"][np.argsort(place)], train["x"])
    changed = np.flatnonzero(y != train["y"])
    assert len(changed) >= 15
    assert np.isin(changed, wrong).mean() >= 0.9


def test_prune_drops_whole_batches(case: Case) -> None:
    by = ("--drop", "tasks", "--by", "label_noise", "--max-fraction", 0.1)
    out = case.folder / "pruned.npz"
    lines = succeeds(cli("prune", case.run, *by, "--apply", "--out", out)).stdout.splitlines()
    assert lines[0].startswith("drop 2 of 20 tasks")
    assert f"wrote {N_TRAIN - 64} instances: {out}" in lines


def test_prune_keeps_so_many_instances_of_a_class(case: Case) -> None:
    drop = ("--drop", "instances", "--by", "mislabeled", "--max-fraction", 0.1)
    outcome = cli("prune", case.run, *drop, "--min-per-class", 1000)
    assert outcome.exit_code == 2
    assert "class " in outcome.error
    assert "of the data needs 1000 instances" in outcome.error


def test_images_that_were_drawn_are_pruned_with_a_copy_of_the_evaluation_set(case: Case) -> None:
    config = yaml.safe_load(case.config.read_text(encoding="utf-8"))
    config["tasks"] |= {"train_size": 320, "image": {"mean": [0.5]}}
    case.config.write_text(yaml.safe_dump(config), encoding="utf-8")
    run = case.score("drawn")
    out = case.folder / "pruned.h5"
    by = ("--drop", "tasks", "--by", "label_noise", "--max-fraction", 0.1)
    lines = succeeds(cli("prune", run, *by, "--apply", "--out", out)).stdout.splitlines()
    command = next(line for line in lines if line.startswith("  metaaudit score"))
    section = json.loads(command.split("tasks=", 1)[1].rstrip("'"))
    evaluation = case.folder / "pruned.eval.h5"
    assert section == {
        **{"format": "labelled", "train": str(out), "eval": str(evaluation)},
        **{"batch": 32, "seed": 0},
    }
    checked = case.score("checked", "--set", f"tasks={json.dumps(section)}")
    assert len(rows(checked, "instances")) == 288


def test_a_drawn_set_is_pruned_to_what_is_left_of_it(case: Case) -> None:
    run = case.score("drawn", "--set", "tasks.train_size=320")
    by = ("--drop", "tasks", "--by", "label_noise", "--max-fraction", 0.1)
    lines = succeeds(cli("prune", run, *by)).stdout.splitlines()
    command = next(line for line in lines if line.startswith("  metaaudit score"))
    assert command.endswith("--set tasks.train=NEW.h5 --set tasks.train_size=null")


def test_evaluate_and_diagnose(case: Case) -> None:
    small = ("--set", "tasks.train_size=128", "--set", "training.epochs=2")
    lds = "{kind: lds, retrainings: 3, seeds: 1, candidates: [{name: task-if}, {name: loss}]}"
    asked = ("--set", f"evaluate={{jobs: 1, experiments: [{lds}]}}")
    succeeds(case.cli("evaluate", "--run", case.folder / "lds", *small, *asked))
    own = ("--set", "checkpoint=planted.safetensors", "--plant", "flips:0.1")
    found = case.folder / "found"
    succeeds(case.cli("evaluate", "--run", found, *small, *own))
    text = (found / "evaluation.md").read_text(encoding="utf-8")
    assert "| self-influence |" in text
    assert "crossfit" not in text
    succeeds(case.cli("diagnose"))


REFUSED = [
    (["tasks={format: episodes, train: a.npz, eval: b.npz}"], "learner.name: none is for"),
    (["learner={name: maml, inner_lr: 0.1, steps: 1}"], "tasks.format: labelled is for"),
    (["mislabel.signal=combined"], "mislabel.signal: combined is for learners that adapt"),
    (["mislabel.signal=own-influence"], "expected loss, margin or self-influence"),
    (["mislabel.folds=4"], "mislabel.folds is for learners that adapt, not for none; remove it"),
    (["mislabel.repeats=2"], "mislabel.repeats is for"),
    (["mislabel.steps=2"], "mislabel.steps is for"),
    (["influence.derivative=implicit"], "influence.derivative: implicit is for"),
    (["influence.curvature=jacobian"], "influence.curvature: jacobian is for"),
    (["influence={inner: {inverse: cg}}"], "inner is for derivative 'implicit'"),
    (["plant.permuted=0.2"], "plant.permuted is for learners that adapt"),
    (["evaluate={experiments: [{kind: retrieval}]}"], "evaluate.experiments: retrieval is for"),
    (["learner.inner_lr=0.1"], "learner.inner_lr: unknown key"),
    (["tasks.batch=0"], "tasks.batch"),
    (["model.ways=5"], "the model has 5 outputs but the tasks have 10 classes"),
    (["tasks.train_size=641"], "holds 640 instances; expected at least 641"),
    (["tasks.image.size=8"], "tasks.image.size: is for images"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
@pytest.mark.parametrize("command", ["validate", "score"])
def test_what_makes_no_sense_is_refused_in_one_line(
    scored: Case, overrides: list[str], message: str, command: str
) -> None:
    options = [part for one in overrides for part in ("--set", one)]
    run = ("--run", scored.folder / "none") if command == "score" else ()
    outcome = scored.cli(command, *run, *options)
    assert outcome.exit_code == 2
    assert message in outcome.error
    assert outcome.stdout == ""
    assert not (scored.folder / "none").exists()


def test_an_experiment_for_learners_that_adapt_is_refused(scored: Case, tmp_path: Path) -> None:
    outcome = scored.cli("evaluate", "--run", tmp_path / "none", "--kind", "editing")
    assert outcome.exit_code == 2
    assert "--kind editing: is for learners that adapt, not for none" in outcome.error


def test_one_instance_and_one_class_a_batch(case: Case) -> None:
    """Batches of one instance: nothing is empty that has to have a mean."""
    train = {"x": np.eye(12, 64, dtype=np.float32).reshape(-1, 1, 8, 8), "y": np.arange(12) % 10}
    np.savez(case.folder / "train.npz", **train)
    run = case.score("single", "--set", "tasks.batch=1", "--set", "tasks.eval_size=12")
    found = [float(row["influence"]) for row in rows(run, "instances")]
    assert len(found) == 12
    assert np.isfinite(found).all()
    assert "NaN" not in (run / "findings.json").read_text(encoding="utf-8")


def test_single_instances_are_diagnosed_as_batches_of_one(case: Case) -> None:
    settings = (
        "tasks.batch=1",
        "tasks.train_size=40",
        "tasks.eval_size=20",
        "influence.method=mts",
    )
    flags = [part for one in settings for part in ("--set", one)]
    succeeds(case.cli("diagnose", "--run", case.folder / "noise", *flags))
    found = rows(case.folder / "noise", "gradient-noise")
    assert [row["tasks"] for row in found] == ["40", "20", "20"]
    assert {row["batch"] for row in rows(case.folder / "noise", "batch-size")} >= {"1", "5", "10"}
