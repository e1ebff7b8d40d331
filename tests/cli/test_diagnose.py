"""``metaaudit diagnose``: the noise of task gradients, at the terminal and in files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.small import Case, digits, succeeds, write_case

FILES = {"evaluation.json", "evaluation.md", "gradient-noise.csv", "layers.csv"} | {
    f"batch-size.{suffix}" for suffix in ("csv", "svg", "png")
}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def diagnosed(trained_case: Case) -> Path:
    folder = trained_case.folder / "noise"
    succeeds(trained_case.cli("diagnose", "--run", folder))
    return folder


def test_it_writes_tables_and_a_figure(diagnosed: Path) -> None:
    assert {path.name for path in diagnosed.iterdir()} == FILES
    rows = table(diagnosed / "gradient-noise.csv")
    assert [row["gradients of"] for row in rows] == ["training tasks", "evaluation tasks"]
    assert [int(row["tasks"]) for row in rows] == [8, 3]
    result = json.loads((diagnosed / "evaluation.json").read_text())
    assert result["complete"] and len(result["results"][0]["notes"]) == 2


def test_the_ratio_is_that_of_the_gradients(trained_case: Case, diagnosed: Path) -> None:
    """By the plain formula, from gradients computed for themselves."""
    from metaaudit.bilevel import total_gradients
    from metaaudit.config import load_config
    from metaaudit.loading import load_weights, prepare

    problem = prepare(load_config(trained_case.config))
    params = load_weights(problem).params
    found = total_gradients(problem.unrolled(params, problem.train)).gradients.astype(np.float64)
    noise = found.var(axis=0, ddof=1).sum()
    signal = (found.mean(axis=0) ** 2).sum() - noise / len(found)
    (row, _) = table(diagnosed / "gradient-noise.csv")
    assert float(row["ratio"]) == pytest.approx(signal / noise, rel=1e-6)


def test_the_same_bytes_again(trained_case: Case, diagnosed: Path) -> None:
    again = trained_case.folder / "again"
    succeeds(trained_case.cli("diagnose", "--run", again))
    for name in FILES - {"evaluation.json"}:
        assert (again / name).read_bytes() == (diagnosed / name).read_bytes(), name


def test_every_checkpoint_is_told_of(trained_case: Case) -> None:
    second = "second.safetensors"
    succeeds(trained_case.cli("train", "--set", f"checkpoint={second}", "--set", "training.seed=1"))
    both = f"checkpoint=[{trained_case.checkpoint.name}, {second}]"
    folder = trained_case.folder / "both"
    told = succeeds(trained_case.cli("diagnose", "--run", folder, "--set", both)).stdout
    rows = table(folder / "gradient-noise.csv")
    assert [row["gradients of"] for row in rows] == [
        f"{tasks} of checkpoint {number}"
        for number in (1, 2)
        for tasks in ("training tasks", "evaluation tasks")
    ]
    assert told.count("The mean gradient of ") == 4


def test_too_few_tasks_are_one_line(tmp_path: Path) -> None:
    train, evaluation = digits(n_eval=2)
    case = write_case(tmp_path / "case", train=train, evaluation=evaluation)
    succeeds(case.cli("train"))
    outcome = case.cli("diagnose")
    assert outcome.exit_code == 2
    assert "tasks: there are 2 evaluation tasks; expected at least 3" in outcome.error


def test_an_existing_folder_is_refused_before_the_work(trained_case: Case) -> None:
    outcome = trained_case.cli("diagnose", "--run", trained_case.folder)
    assert outcome.exit_code == 2 and "load" not in outcome.stderr


def test_batches_are_compared_up_to_half_of_the_tasks(diagnosed: Path) -> None:
    rows = table(diagnosed / "batch-size.csv")
    assert {row["batch"] for row in rows} == {"1", "2"}  # half of the eight is measured on
    assert all(np.isfinite(float(row["measured"])) for row in rows)


@pytest.fixture
def learned(trained_case: Case) -> Path:
    folder = trained_case.folder / "learned"
    succeeds(trained_case.cli("diagnose", "--run", folder, "--set", "influence.method=mts"))
    return folder


def test_learned_selection_is_diagnosed_too(learned: Path) -> None:
    assert {path.name for path in learned.iterdir()} == FILES | {
        f"weights.{suffix}" for suffix in ("csv", "svg", "png")
    }
    rows = table(learned / "gradient-noise.csv")
    assert rows[2]["gradients of"] == "pairs of tasks for the meta-network"
    assert float(rows[2]["low"]) <= float(rows[2]["high"])
    layers = table(learned / "layers.csv")
    named = [
        row["parameters"]
        for row in layers
        if row["gradients of"] == "pairs of tasks for the meta-network"
    ]
    assert named == [f"{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")]
    (shares,) = table(learned / "weights.csv")
    fifths = [float(shares[name]) for name in ("best", "second", "third", "fourth", "worst")]
    assert sum(fifths) == pytest.approx(1)


def test_agreement_has_an_interval(diagnosed: Path) -> None:
    for row in table(diagnosed / "batch-size.csv"):
        assert float(row["low"]) <= float(row["predicted"]) <= float(row["high"])
