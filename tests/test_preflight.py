"""What a dry run says beforehand, and how many tasks are computed at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from metaaudit import audit, room
from metaaudit.config import load_config
from metaaudit.console import silent
from metaaudit.preflight import plan
from metaaudit.rehearsal import Estimate, rehearsed
from tests.small import Case, digits, succeeds, write_case

CONV = {"model": {"name": "conv4", "hidden": 8, "blocks": 2, "ways": 5}, "mislabel.folds": 5}


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Tasks enough for their work to outweigh what is done once."""
    train, evaluation = digits(n_train=80, n_eval=20, ways=5, shots=5, queries=5)
    case = write_case(
        tmp_path_factory.mktemp("larger") / "case",
        {**CONV, "training.epochs": 1, "training.batch": 40},
        train=train,
        evaluation=evaluation,
    )
    succeeds(case.cli("train"))
    return case


def estimate(case: Case) -> Estimate:
    return rehearsed(audit.prepared(load_config(case.config), silent(), keep=False))


def within_a_factor_of_two(expected: float, found: float) -> bool:
    return 0.5 <= expected / found <= 2


def test_the_estimate_agrees_with_a_run(larger: Case, cache_dir: Path) -> None:
    """Time on a machine with other work to do may be off once, but not three times."""
    tries = []
    for number in range(3):
        expected = sum(estimate(larger).seconds.values())
        options = ("--set", f"mislabel.seed={number}", "--set", f"influence.seed={number}")
        before = sum(path.stat().st_size for path in cache_dir.glob("*.h5"))
        run = larger.score(f"run-{number}", *options)
        if not number:
            need = estimate_anew(larger, cache_dir)
            stored = sum(path.stat().st_size for path in cache_dir.glob("*.h5")) - before
            assert within_a_factor_of_two(need.disk, stored)
            peak = json.loads((run / "manifest.json").read_text())["peak_memory_mb"] * 2**20
            assert within_a_factor_of_two(need.memory, peak)
        timings = json.loads((run / "manifest.json").read_text())["timings_s"]
        spent = sum(timings.values()) - timings["load"]
        tries.append((expected, spent))
        if within_a_factor_of_two(expected, spent):
            return
    pytest.fail(f"estimated and spent: {tries}")


def estimate_anew(case: Case, cache_dir: Path) -> Estimate:
    """What would be told if the cache were empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAAUDIT_CACHE_DIR", str(cache_dir / "empty"))
        return estimate(case)


def test_what_the_cache_holds_takes_no_time(trained_case: Case) -> None:
    cold = estimate(trained_case)
    trained_case.score()
    warm = estimate(trained_case)
    assert {"gradients", "cross-fitting", "instance influence"} <= set(cold.seconds)
    assert "gradients" not in warm.seconds and "cross-fitting" not in warm.seconds
    assert 0 < warm.disk < cold.disk / 4  # instance influence alone depends on the adjoint


def test_a_dry_run_tells_of_it(trained_case: Case) -> None:
    told = succeeds(trained_case.cli("score", "--run", trained_case.run, "--dry-run")).stdout
    for line in ("tasks at once: 10\n", "time: about ", "memory: about ", "disk: about "):
        assert line in told


def test_few_tasks_that_cannot_be_scored_are_told_of(
    trained_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metaaudit import preflight
    from metaaudit.errors import IncompleteError

    def fails(_: object) -> Estimate:
        raise IncompleteError("solve", "did not converge")

    monkeypatch.setattr(preflight, "rehearsed", fails)
    lines = dict(plan(load_config(trained_case.config), trained_case.run, silent()))
    assert lines["time"].startswith("not estimated") and "did not converge" in lines["time"]


# How many at once.


def batch_of(run: Path) -> int:
    return int(json.loads((run / "manifest.json").read_text())["task_batch"])


def test_as_many_at_once_as_fit(trained_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    three = free_for(trained_case, 3)
    monkeypatch.setattr(room, "free_bytes", lambda _: three)
    assert batch_of(trained_case.score("short")) == 3
    assert batch_of(trained_case.score("asked", "--set", "compute.task_batch=4")) == 4


def test_an_interrupted_run_goes_on_with_as_many(
    trained_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = free_for(trained_case, 3)
    with monkeypatch.context() as short:
        short.setattr(room, "free_bytes", lambda _: three)
        short.setattr(audit, "write_run", interrupted)
        assert trained_case.cli("score", "--run", trained_case.run).exit_code == 130
    assert batch_of(trained_case.score("whole")) == 3
    assert batch_of(trained_case.score("the next")) == 10


def free_for(case: Case, tasks: int) -> int:
    """Memory that holds so many tasks at once."""
    problem = audit.prepared(load_config(case.config), silent(), keep=False).problem
    return 2 * tasks * room.task_bytes(problem) + 1


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_one_at_least(trained_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _: 0)
    assert batch_of(trained_case.score()) == 1


def test_free_memory_heeds_the_limit_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CGROUP", tmp_path / "none")
    everything = room.free_bytes(torch.device("cpu"))
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert room.free_bytes(torch.device("cpu")) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert np.isclose(room.free_bytes(torch.device("cpu")), everything, rtol=0.2)
