"""What `score` asks the cache for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit import stages
from tests.small import LABEL_STAGES, Case, digits, files, succeeds, write_case

SAMPLED = "sampled Fisher"
INSTANCES = "instance influence"
STAGES = ("gradients", "gradients of evaluation tasks", SAMPLED, INSTANCES, *LABEL_STAGES)


def statuses(run: Path) -> dict[str, str]:
    manifest = json.loads((run / "manifest.json").read_text())
    uses, curvature = manifest["cache"], manifest["config"]["influence"]["curvature"]
    sampled = curvature == "sampled-fisher"
    assert set(uses) == {stage for stage in STAGES if sampled or stage != SAMPLED}
    return {stage: use["status"] for stage, use in uses.items()}


def test_another_evaluation_set_reuses_what_the_training_tasks_gave(trained_case: Case) -> None:
    assert set(statuses(trained_case.score("first")).values()) == {"computed"}
    from metaaudit.inputs.episodes import write_episodes

    write_episodes(trained_case.folder / "other.npz", digits(seed=1)[1])
    other = ("--set", "tasks.eval=other.npz")
    assert statuses(trained_case.score("second", *other)) == {
        "gradients": "hit",
        "gradients of evaluation tasks": "computed",
        "sampled Fisher": "hit",
        "instance influence": "computed",
        "support cross-fitting": "hit",
        "adapted fit": "hit",
        "cross-fitting": "hit",
        "support cross-fitting of evaluation tasks": "computed",
        "adapted fit of evaluation tasks": "computed",
        "cross-fitting of evaluation tasks": "computed",
    }
    first, second = (
        (trained_case.folder / name / "tasks.csv").read_bytes() for name in ("first", "second")
    )
    assert first != second


def test_scores_from_the_cache_are_the_same_bit_by_bit(trained_case: Case) -> None:
    first, second = trained_case.score("first"), trained_case.score("second")
    assert set(statuses(second).values()) == {"hit"}
    for name in ("tasks.csv", "instances.csv", "scores.h5", "findings.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def other_weights(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    succeeds(case.cli("train", "--overwrite", "--set", "training.seed=1"))
    return ()


def other_data(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    with np.load(case.folder / "train.npz") as file:
        content = dict(file)
    # One label, in both sets, of the first task: classes 0 and 1 change their names.
    for name in ("support_y", "query_y"):
        content[name][0] = np.array([1, 0, 2])[content[name][0]]
    np.savez(case.folder / "train.npz", **content)
    return ()


def other_learner(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--set", "learner.inner_lr=0.2")


def other_precision(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--set", "compute.dtype=float64")


def other_pixels(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--set", "tasks.image.scale=254")


def other_code(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    patch.setattr(stages, "code_hash", lambda: "0" * 64)
    return ()


MISSES = [
    (other_weights, STAGES),
    (other_data, ("gradients", SAMPLED, INSTANCES, *LABEL_STAGES[:3])),
    (other_learner, STAGES),
    (other_precision, STAGES),
    (other_pixels, STAGES),
    (other_code, STAGES),
    (lambda case, patch: ("--set", "mislabel.folds=3"), LABEL_STAGES[2::3]),
    (lambda case, patch: ("--set", "compute.task_batch=3"), ()),
    (lambda case, patch: ("--set", "influence.curvature=exact"), (INSTANCES,)),
    (lambda case, patch: ("--set", "influence.probes=2"), (SAMPLED, INSTANCES)),
]


@pytest.mark.parametrize(
    ("change", "computed"),
    MISSES,
    ids=[
        "weights",
        "data",
        "learner",
        "dtype",
        "pixels",
        "code",
        "folds",
        "batch",
        "curvature",
        "probes",
    ],
)
def test_what_a_change_computes_again(
    trained_case: Case, change: Any, computed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_case.score("first")
    options = change(trained_case, monkeypatch)
    found = statuses(trained_case.score("second", *options))
    assert {stage for stage, status in found.items() if status == "computed"} == set(computed)


def test_damaged_file_is_reported_and_rebuilt(trained_case: Case, cache_dir: Path) -> None:
    first = trained_case.score("first")
    for path in cache_dir.glob("crossfit-*.h5"):
        path.write_bytes(path.read_bytes()[:-100])
    outcome = trained_case.cli("score", "--run", trained_case.folder / "second")
    assert "was damaged" in succeeds(outcome).stderr
    second = trained_case.folder / "second"
    assert statuses(second)["cross-fitting"] == "computed"
    assert statuses(second)["gradients"] == "hit"
    assert (first / "instances.csv").read_bytes() == (second / "instances.csv").read_bytes()
    assert "was damaged" in json.loads((second / "findings.json").read_text())["warnings"][0]
    assert len(list(cache_dir.glob("*.damaged"))) == 2  # of training and of evaluation tasks


def test_nothing_is_cached_where_loading_fails(tmp_path: Path, cache_dir: Path) -> None:
    case = write_case(tmp_path / "case")
    assert case.cli("score", "--run", case.run).exit_code == 2
    assert not cache_dir.exists() or files(cache_dir) == {}
    assert os.environ["METAAUDIT_CACHE_DIR"] == str(cache_dir)
