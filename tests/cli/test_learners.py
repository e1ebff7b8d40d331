"""Every learner from training to scores, by the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors import safe_open

from tests.small import Case, succeeds, write_case

STEPS = {"inner_lr": 0.3, "steps": 2}
LEARNERS: dict[str, dict[str, Any]] = {
    "anil": STEPS,
    "meta-sgd": STEPS,
    "fomaml": STEPS,
    "reptile": STEPS,
    "protonet": {},
    "ridge": {"l2": 0.5},
}
FIELDS = ("fomaml", "reptile")


def learner_case(folder: Path, name: str, **changes: Any) -> Case:
    learner = {"name": name, **LEARNERS[name]}
    return write_case(folder / name, {"learner": learner, "training.epochs": 6, **changes})


def manifest(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return found


@pytest.mark.parametrize("name", LEARNERS)
def test_trains_and_scores(tmp_path: Path, name: str) -> None:
    case = learner_case(tmp_path, name, **{"influence.self_influence": True})
    succeeds(case.cli("train"))
    run = case.score()
    found = manifest(run)
    expected = "jacobian" if name in FIELDS else "sampled-fisher"
    assert found["solver"]["curvature"] == expected
    assert found["config"]["learner"]["name"] == name
    with h5py.File(run / "scores.h5") as scores:
        influence = np.asarray(scores["task_influence"])
        assert influence.shape == (8, 3) and np.isfinite(influence).all() and influence.any()
        assert np.isfinite(np.asarray(scores["instances/self_influence"])).all()
    with (run / "instances.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8 * 12
    assert all(0 <= float(row["mislabel_score"]) <= 1 for row in rows)
    assert {row["set"] for row in rows if float(row["influence"])} == {"support", "query"}


@pytest.mark.parametrize("name", LEARNERS)
def test_training_lowers_the_loss(tmp_path: Path, name: str) -> None:
    case = learner_case(tmp_path, name, **{"training.epochs": 15})
    succeeds(case.cli("train"))
    with case.checkpoint.with_suffix(".log.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "held", "lacks"),
    [
        ("meta-sgd", {"lrs.0", "lrs.3", "3.weight"}, set()),
        ("protonet", {"1.weight", "1.bias"}, {"3.weight", "3.bias"}),
        ("ridge", {"1.weight", "ridge.log_l2", "ridge.log_scale"}, {"3.weight", "3.bias"}),
    ],
)
def test_a_checkpoint_holds_the_meta_parameters(
    tmp_path: Path, name: str, held: set[str], lacks: set[str]
) -> None:
    case = learner_case(tmp_path, name, **{"training.epochs": 1})
    succeeds(case.cli("train"))
    with safe_open(case.checkpoint, "pt") as file:
        names = set(file.keys())
    assert names >= held and not names & lacks


@pytest.mark.parametrize("name", ["anil", "meta-sgd", "protonet", "ridge"])
def test_takes_every_curvature(tmp_path: Path, name: str) -> None:
    case = learner_case(tmp_path, name, **{"training.epochs": 2})
    succeeds(case.cli("train"))
    for curvature in ("ekfac", "ggn", "gamma", "instance-fisher", "exact"):
        run = case.score(curvature, "--set", f"influence.curvature={curvature}")
        assert manifest(run)["solver"]["curvature"] == curvature
    plain, by_ekfac = (
        case.score(
            f"by {choice}",
            *("--set", "influence.curvature=ggn", "--set", "influence.tolerance=1e-8"),
            *("--set", "influence.damping=1.0", "--set", f"influence.preconditioner={choice}"),
        )
        for choice in ("none", "ekfac")
    )
    with h5py.File(plain / "scores.h5") as one, h5py.File(by_ekfac / "scores.h5") as other:
        np.testing.assert_allclose(one["task_influence"], other["task_influence"], rtol=1e-3)


def test_gradients_of_a_field_are_not_taken_for_total_gradients(tmp_path: Path) -> None:
    """The same tasks on both sides: the cache must tell the field from the gradient."""
    case = learner_case(tmp_path, "fomaml")
    (case.folder / "eval.npz").write_bytes((case.folder / "train.npz").read_bytes())
    succeeds(case.cli("train"))
    uses = manifest(case.score())["cache"]
    assert uses["gradients"]["key"] != uses["gradients of evaluation tasks"]["key"]


def test_a_field_is_solved_to_tolerance_with_enough_damping(tmp_path: Path) -> None:
    case = learner_case(tmp_path, "fomaml", **{"influence.damping": 1.0})
    succeeds(case.cli("train"))
    solver = manifest(case.score())["solver"]
    assert solver["solver"] == "gmres" and solver["converged"]
    dense = case.score("dense", "--set", "influence.solver=dense")
    with h5py.File(case.run / "scores.h5") as one, h5py.File(dense / "scores.h5") as other:
        np.testing.assert_allclose(one["task_influence"], other["task_influence"], rtol=1e-3)


@pytest.mark.parametrize("name", ["protonet", "ridge"])
def test_outputs_that_no_task_uses_do_no_harm(tmp_path: Path, name: str) -> None:
    case = learner_case(
        tmp_path, name, **{"model.ways": 8, "compute.dtype": "float64", "training.epochs": 1}
    )
    succeeds(case.cli("train"))
    with h5py.File(case.score() / "scores.h5") as scores:
        assert np.isfinite(np.asarray(scores["instances/mislabel_score"])).all()
