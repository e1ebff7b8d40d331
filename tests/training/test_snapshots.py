"""Numbered checkpoints along training: when, with what in them, and through interruptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from metaaudit.config import load_config
from metaaudit.inputs.checkpoints import read_checkpoint, write_checkpoint
from metaaudit.loading import load_weights, prepare
from metaaudit.training import TrainingFiles, TrainingState
from tests.small import Case, digits, files, succeeds, write_case
from tests.training.test_training_files import interrupted

EPOCHS = 5
EVERY_2 = ("--set", "training.snapshots=2")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return write_case(tmp_path / "case", {"training.epochs": EPOCHS})


def snapshots(case: Case) -> list[str]:
    return sorted(path.name for path in case.folder.glob("*epoch-*"))


def test_every_so_many_epochs(case: Case) -> None:
    succeeds(case.cli("train", *EVERY_2))
    assert snapshots(case) == [
        "checkpoint.epoch-002.safetensors",
        "checkpoint.epoch-004.safetensors",
    ]
    final = read_checkpoint(case.checkpoint)
    log = (case.folder / "checkpoint.log.csv").read_text().splitlines()
    rates = [float(line.split(",")[3]) for line in log[1:]]
    assert float(final.metadata["lr"]) == rates[-1]
    assert "snapshot" not in final.metadata
    for name, epoch in zip(snapshots(case), (2, 4), strict=True):
        found = read_checkpoint(case.folder / name)
        assert (found.metadata["epoch"], found.metadata["snapshot"]) == (str(epoch), "true")
        assert float(found.metadata["lr"]) == rates[epoch - 1]
        assert found.metadata["recipe"] == final.metadata["recipe"]


def test_holds_the_weights_after_that_epoch(case: Case) -> None:
    """Those of training that was stopped there."""
    succeeds(case.cli("train", *EVERY_2))
    kept = read_checkpoint(case.folder / "checkpoint.epoch-002.safetensors")
    interrupted(case, 2, "--overwrite")
    stopped = read_checkpoint(case.checkpoint)
    assert stopped.metadata["epoch"] == "2"
    assert all(torch.equal(kept.weights[name], p) for name, p in stopped.weights.items())


def test_nothing_that_is_learnt_depends_on_them(case: Case) -> None:
    succeeds(case.cli("train"))
    plain = case.checkpoint.read_bytes()
    assert snapshots(case) == []
    succeeds(case.cli("train", "--overwrite", *EVERY_2))
    assert case.checkpoint.read_bytes() == plain


def test_recipe_is_as_it_was_before_there_were_snapshots(tmp_path: Path) -> None:
    """A run from then can be resumed."""
    case = write_case(tmp_path, {"training.snapshots": 1})
    run = TrainingFiles.of(load_config(case.config), digits()[0], source="")
    assert set(json.loads(run.recipe)["training"]) == {
        "epochs", "batch", "lr", "schedule", "weight_decay", "seed",
    }  # fmt: skip


def test_interrupted_and_resumed(case: Case) -> None:
    succeeds(case.cli("train", *EVERY_2))
    whole = {name: (case.folder / name).read_bytes() for name in snapshots(case)}
    interrupted(case, 3, "--overwrite", *EVERY_2)
    assert snapshots(case) == ["checkpoint.epoch-002.safetensors"]
    outcome = succeeds(case.cli("train", "--resume", *EVERY_2))
    assert "no numbered checkpoint" not in outcome.stderr
    assert {name: (case.folder / name).read_bytes() for name in snapshots(case)} == whole


def test_stopped_between_a_snapshot_and_the_state(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run is to write it again, so it comes before the state that tells it is passed."""
    written: list[str] = []
    for name in ("write_checkpoint", "write_text"):
        monkeypatch.setattr(
            f"metaaudit.training.checkpointing.{name}", lambda path, *_: written.append(path.name)
        )
    config = load_config(case.config, ["training.snapshots=1", "training.epochs=1"])
    problem = prepare(config)
    run = TrainingFiles.of(config, problem.train, problem.model.source)
    from metaaudit.training import MetaTrainer

    initial = TrainingState.initial(problem.template)
    MetaTrainer(problem.as_trained, problem.train, config.training).run(initial, run.save)
    assert written[0] == "checkpoint.epoch-001.safetensors"
    assert written[-1] == "checkpoint.safetensors"


def test_resumed_with_them_when_some_are_past(case: Case) -> None:
    interrupted(case, 3)
    outcome = succeeds(case.cli("train", "--resume", *EVERY_2))
    assert snapshots(case) == ["checkpoint.epoch-004.safetensors"]
    assert "no numbered checkpoint of epoch 2" in outcome.stderr


def test_overwriting_removes_those_of_the_run_before(case: Case) -> None:
    succeeds(case.cli("train", *EVERY_2))
    own = case.folder / "checkpoint.epoch-003.safetensors"
    write_checkpoint(own, {"mine": torch.zeros(1)}, {})
    damaged = case.folder / "checkpoint.epoch-old.safetensors"
    damaged.write_bytes(b"mine")
    other = case.folder / "checkpoint2.epoch-002.safetensors"
    other.write_bytes((case.folder / "checkpoint.epoch-002.safetensors").read_bytes())
    succeeds(case.cli("train", "--overwrite", "--set", "training.snapshots=5"))
    assert snapshots(case) == sorted(
        [own.name, damaged.name, other.name, "checkpoint.epoch-005.safetensors"]
    )


def test_interrupt_in_the_first_epoch_leaves_them(case: Case) -> None:
    succeeds(case.cli("train", *EVERY_2))
    before = files(case.folder)
    interrupted(case, 0, "--overwrite", *EVERY_2)
    assert files(case.folder) == before


def test_existing_one_is_not_overwritten(case: Case) -> None:
    own = case.folder / "checkpoint.epoch-004.safetensors"
    own.write_bytes(b"mine")
    before = files(case.folder)
    outcome = case.cli("train", *EVERY_2)
    assert outcome.exit_code == 2
    assert "checkpoint.epoch-004.safetensors: exists already" in outcome.error
    assert files(case.folder) == before
    succeeds(case.cli("train"))


def test_scored_without_a_word_on_interruption(case: Case) -> None:
    succeeds(case.cli("train", *EVERY_2))
    config = load_config(case.config, [f"checkpoint=[{', '.join(snapshots(case))}]"])
    problem = prepare(config)
    for path in config.checkpoints:
        assert load_weights(problem, path).warnings == ()
    interrupted(case, 2, "--overwrite")
    assert "interrupted after epoch 2" in load_weights(problem, case.checkpoint).warnings[0]
