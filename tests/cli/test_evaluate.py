"""``metaaudit evaluate`` from end to end, on tasks of digits."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metaaudit import evaluate, meta_train
from metaaudit.config import Config, LdsFlags, load_config, with_experiments
from metaaudit.config.evaluate import EXPERIMENTS
from metaaudit.console import Messages
from metaaudit.errors import ConfigError, UsageError
from metaaudit.fidelity.experiments import check, experiment
from metaaudit.fidelity.results import Result, Table
from metaaudit.fidelity.retraining import Retrainer
from metaaudit.loading import prepare
from tests.small import Case, Outcome, files, succeeds, write_case

CANDIDATES = [{"name": "ours"}, {"name": "dot", "influence": {"method": "dot"}}]
SMALL = {
    "evaluate.jobs": 1,
    "evaluate.experiments": [
        {"kind": "lds", "retrainings": 4, "candidates": CANDIDATES, "resamples": 50}
    ],
}


@pytest.fixture
def case(trained_case: Case) -> Case:
    return write_case(trained_case.folder, SMALL)


def evaluated(case: Case, name: str = "found", *args: object) -> Outcome:
    return case.cli("evaluate", "--run", case.folder / name, *args)


def found(case: Case, name: str = "found") -> dict[str, Any]:
    return dict(json.loads((case.folder / name / "evaluation.json").read_text()))


def lds_table(case: Case, name: str) -> list[dict[str, str]]:
    text = (case.folder / name / "lds.csv").read_text().splitlines()
    return [{k: v for k, v in row.items() if k != "scoring (s)"} for row in csv.DictReader(text)]


def test_scores_are_compared_with_retraining(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    done = succeeds(evaluated(case))
    assert "LDS" in done.stdout and "ours" in done.stdout and "noise ceiling" not in done.stderr
    result = found(case)
    assert result["complete"] and result["config"]["evaluate"]["jobs"] == 1
    assert [len(one["sha256"]) for one in result["checkpoints"]] == [64]
    assert result["results"][0]["details"]["retrainings"] == {"done": 4, "asked": 4, "seeds": 2}
    assert {"lds.csv", "lds.svg", "lds.png", "evaluation.md"} <= set(files(case.folder / "found"))

    def no_more(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("metaaudit.training.MetaTrainer.run", no_more)
    succeeds(evaluated(case, "again"))
    assert lds_table(case, "again") == lds_table(case, "found")


def test_when_time_is_up_all_is_written_and_the_exit_code_is_3(case: Case) -> None:
    done = evaluated(case, "found", "--budget", 0)
    assert done.exit_code == 3
    assert "the time was up before lds was done" in done.error
    assert "new --run goes on" in done.error
    assert not found(case)["complete"]
    assert "Not complete" in (case.folder / "found" / "evaluation.md").read_text()
    assert "Not complete" in done.stdout


def test_ctrl_c_says_how_to_go_on(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Retrainer, "run", interrupted)
    done = evaluated(case)
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr
    assert not (case.folder / "found").exists()


def test_missing_checkpoints_are_trained_first_as_train_would(tmp_path: Path) -> None:
    names = ["a.safetensors", "b.safetensors"]
    case = write_case(tmp_path, {**SMALL, "checkpoint": names})
    done = succeeds(evaluated(case))
    assert "a.safetensors is not there and is trained first (training.seed 0)" in done.stderr
    assert "b.safetensors is not there and is trained first (training.seed 1)" in done.stderr
    succeeds(case.cli("train", "--set", "checkpoint=c.safetensors", "--set", "training.seed=1"))
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()
    assert len(found(case)["checkpoints"]) == 2
    assert "is trained first" not in evaluated(case, "again").stderr


def test_numbered_checkpoints_are_of_one_training(tmp_path: Path) -> None:
    names = ["a.epoch-001.safetensors", "a.epoch-002.safetensors"]
    case = write_case(tmp_path, {**SMALL, "checkpoint": names, "training.snapshots": 1})
    done = succeeds(evaluated(case))
    assert done.stderr.count("is trained first") == 1
    (tmp_path / names[0]).unlink()
    assert "is not there, though a.safetensors is" in evaluated(case, "again").error


def test_an_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = write_case(tmp_path, SMALL)
    whole = write_case(tmp_path / "whole", SMALL)
    succeeds(whole.cli("train"))
    save = meta_train.TrainingFiles.save

    def once(self: meta_train.TrainingFiles, state: meta_train.TrainingState) -> None:
        save(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(meta_train.TrainingFiles, "save", once)
        assert case.cli("train").exit_code == 130
    done = succeeds(evaluated(case))
    assert "goes on with its training" in done.stderr
    assert case.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_a_checkpoint_of_other_tasks_is_warned_of(case: Case) -> None:
    assert "was trained on other tasks" not in evaluated(case).stderr
    planted = succeeds(evaluated(case, "planted", "--plant", "permuted:0.3"))
    assert "was trained on other tasks" in " ".join(planted.stderr.split())
    written = found(case, "planted")["warnings"]
    assert any("was trained on other tasks" in line for line in written)
    assert "## Warnings" in (case.folder / "planted" / "evaluation.md").read_text()
    shorter = succeeds(evaluated(case, "shorter", "--set", "training.epochs=1"))
    assert "was trained on other tasks" not in " ".join(shorter.stderr.split())


def test_flags_set_keys(case: Case) -> None:
    flags = ("--subsets", 3, "--seeds", 1, "--same-steps", "--warm-start", "--plant", "flips:0.1")
    succeeds(evaluated(case, "found", *flags, "--set", "plant.seed=5"))
    config = found(case)["config"]
    (lds,) = config["evaluate"]["experiments"]
    assert (lds["retrainings"], lds["seeds"]) == (3, 1)
    assert lds["same_steps"] and lds["warm_start"]
    assert (config["plant"]["flips"], config["plant"]["seed"]) == (0.1, 5)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--kind", "ldss"), "is no experiment"),
        (("--kind", "agreement"), "needs settings of its own (reference, candidates)"),
        (("--kind", "detection", "--subsets", 3), "there is none"),
        (("--plant", "permuted"), "is no KIND:RATE"),
        (("--plant", "permutted:0.1"), "KIND one of flips, confusable, corrupted, permuted"),
        (("--plant", "flips:0"), "--plant flips:0: is no KIND:RATE"),
        (("--plant", "seed:4"), "--plant seed:4: is no KIND:RATE"),
        (("--plant", "permuted:2"), "plant.permuted: got 2"),
        (("--set", "evaluate.jobs=0"), "evaluate.jobs: got 0"),
        (("--subsets", 1), "tell nothing"),
        (("--budget", "inf"), "--budget: is inf"),
    ],
)
def test_bad_flags_give_one_line(case: Case, flags: tuple[object, ...], part: str) -> None:
    done = evaluated(case, "found", *flags)
    assert done.exit_code == 2
    assert part in done.error
    assert not (case.folder / "found").exists()


BAD_REFERENCE = "{kind: agreement, reference: {name: x, influence: {dampng: 1}}, candidates: [*]}"


@pytest.mark.parametrize(
    ("experiment", "changes", "part"),
    [
        ("{kind: lds, candidates: [{name: x, influence: {dampng: 1}}]}", {}, "dampng"),
        (BAD_REFERENCE.replace("*", "{name: y}"), {}, "dampng"),
        ("{kind: harmful}", {}, "corrupts no whole task"),
        ("{kind: detection}", {}, "changes no label"),
        ("{kind: drift}", {"learner": {"name": "protonet"}}, "drift is not for protonet"),
        ("{kind: lds, retrainings: 2}", {}, "tell nothing"),
        ("{kind: noise-images, share: 0.01}", {}, "8 tasks are 0"),
    ],
)
def test_what_cannot_be_done_is_told_before_training(
    experiment: str, changes: dict[str, Any], part: str, tmp_path: Path
) -> None:
    case = write_case(tmp_path, changes)
    both = f"evaluate.experiments=[{{kind: retrieval}}, {experiment}]"
    done = evaluated(case, "found", "--set", both)
    assert done.exit_code == 2 and part in done.error
    assert "is trained first" not in done.stderr and not case.checkpoint.exists()


def test_a_model_that_cannot_be_trained_is_refused_where_it_would_be(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    problem = prepare(load_config(case.config))
    model = problem.config.model.model_copy(update={"statistics": "running"})
    running = replace(problem, config=problem.config.model_copy(update={"model": model}))
    check(running, EXPERIMENTS["retrieval"].model_validate({"kind": "retrieval"}))
    for kind in ("lds", "editing", "noise-images"):
        with pytest.raises(ConfigError, match=r"model\.statistics: is running"):
            check(running, EXPERIMENTS[kind].model_validate({"kind": kind}))


def test_a_missing_checkpoint_of_another_format_is_not_trained(tmp_path: Path) -> None:
    case = write_case(tmp_path, {"checkpoint": ["a.safetensors", "b.pt"]})
    done = evaluated(case)
    assert done.exit_code == 2 and "b.pt: is not there" in done.error
    assert "is trained first" not in done.stderr


def test_the_time_starts_when_the_checkpoints_are_there(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, deadlines = [], []
    monkeypatch.setattr(evaluate, "train_missing", lambda *_: ready.append(time.monotonic()))
    monkeypatch.setattr(evaluate, "_results", lambda b: deadlines.append(b.retrainer.deadline))
    monkeypatch.setattr(evaluate, "write_evaluation", lambda *_: None)
    evaluate.run(load_config(case.config), case.folder / "found", Messages(), 60)
    assert deadlines[0] >= ready[0] + 60


def test_when_it_is_terminated_nothing_half_done_is_left(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    mine = lambda *_: heard.append("mine")  # noqa: E731
    before, there = signal.signal(signal.SIGTERM, mine), set(files(case.folder))
    monkeypatch.setattr(evaluate, "_results", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    try:
        assert evaluated(case).exit_code == 143
        assert signal.getsignal(signal.SIGTERM) is mine and not heard
    finally:
        signal.signal(signal.SIGTERM, before)
    assert set(files(case.folder)) == there


def test_an_existing_folder_is_left_alone(case: Case) -> None:
    (case.folder / "found").mkdir()
    (case.folder / "found" / "mine").touch()
    assert "exists already" in evaluated(case).error
    assert list(files(case.folder / "found")) == ["mine"]


def small_config(case: Case, *overrides: str) -> Config:
    return load_config(case.config, overrides)


def kinds(config: Config) -> list[str]:
    return [one.kind for one in config.evaluate.experiments]


def test_kinds_choose_among_what_is_configured(case: Case) -> None:
    two = "evaluate.experiments=[{kind: detection}, {kind: lds, seeds: 5}, {kind: drift}]"
    config = with_experiments(small_config(case, two), ["drift", "lds", "editing"], LdsFlags())
    assert kinds(config) == ["lds", "drift", "editing"]
    assert getattr(config.evaluate.experiments[0], "seeds") == 5  # noqa: B009


def test_planting_asks_for_detection_unless_told_otherwise(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    plain, planted = small_config(case), small_config(case, "plant.flips=0.1")
    assert kinds(with_experiments(plain, (), LdsFlags())) == ["lds"]
    assert kinds(with_experiments(planted, (), LdsFlags())) == ["detection"]
    assert kinds(with_experiments(planted, ["lds"], LdsFlags())) == ["lds"]
    told = small_config(case, "plant.flips=0.1", "evaluate.experiments=[{kind: drift}]")
    assert kinds(with_experiments(told, (), LdsFlags())) == ["drift"]


@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_every_kind_has_an_experiment(kind: str) -> None:
    assert callable(experiment(kind))


@pytest.mark.parametrize("kind", sorted(EXPERIMENTS.keys() - {"agreement"}))
def test_every_other_kind_has_defaults(kind: str, case: Case) -> None:
    assert kinds(with_experiments(small_config(case), [kind], LdsFlags()))[-1] == kind


def test_errors_of_flags_are_of_use(case: Case) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.experiments"):
        with_experiments(small_config(case), ["agreement"], LdsFlags())
    with pytest.raises(UsageError, match="add --kind lds"):
        with_experiments(small_config(case), ["drift"], LdsFlags(seeds=1))


def test_a_process_that_is_not_the_first_writes_and_prints_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    succeeds(evaluated(case))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(Retrainer, "run", lambda _, requests: [None] * len(requests))
    done = evaluated(case, "other")
    assert done.exit_code == 0 and done.stdout == ""  # lest the first be ended while it writes
    assert "load:" not in done.stderr
    assert not (case.folder / "other").exists()


def test_two_experiments_of_a_kind_have_files_of_their_own(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table("detection", "t", ("a",), [(1,)])
    made_up = lambda bench, config: Result(config.kind, "t", (table,))  # noqa: E731
    monkeypatch.setattr(evaluate, "experiment", lambda kind: made_up)
    twice = "evaluate.experiments=[{kind: detection}, {kind: detection}]"
    succeeds(evaluated(case, "found", "--set", twice, "--plant", "flips:0.1"))
    assert {"detection.csv", "detection-2.csv"} <= set(files(case.folder / "found"))
