"""A training run on disk: reproducible, resumable, and never overwritten by accident."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from metaaudit.config import load_config
from metaaudit.errors import CheckpointError
from metaaudit.inputs.checkpoints import read_checkpoint
from metaaudit.loading import prepare
from metaaudit.training import Epoch, MetaTrainer, TrainingFiles, TrainingState
from tests.small import Case, digits, files, succeeds, write_case

EPOCHS = 4


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return write_case(tmp_path / "case", {"training.epochs": EPOCHS})


def interrupted(case: Case, epochs: int, *options: str) -> None:
    """Trains, with Ctrl-C in the middle of the epoch after ``epochs``."""
    whole = MetaTrainer._epoch

    def epoch(self: MetaTrainer, state: TrainingState, advance: Any) -> TrainingState:
        if state.epoch == epochs:

            def stop(*_: Any) -> None:
                raise KeyboardInterrupt

            return whole(self, state, stop)
        return whole(self, state, advance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetaTrainer, "_epoch", epoch)
        assert case.cli("train", *options).exit_code == 130


def test_checkpoint_log_and_state(case: Case) -> None:
    succeeds(case.cli("train"))
    assert set(files(case.folder)) == {
        "checkpoint.log.csv",
        "checkpoint.safetensors",
        "checkpoint.training.safetensors",
        "eval.npz",
        "metaaudit.yaml",
        "train.npz",
    }
    checkpoint = read_checkpoint(case.checkpoint)
    template = prepare(load_config(case.config)).model.initial()
    assert {name: t.shape for name, t in checkpoint.weights.items()} == {
        name: t.shape for name, t in template.items()
    }
    assert checkpoint.metadata["epoch"] == str(EPOCHS)
    recipe = json.loads(checkpoint.metadata["recipe"])
    own = {"name": "maml", "inner_lr": 0.3, "steps": 2}
    assert recipe["learner"] == own
    assert recipe["training"]["weight_decay"] == 0.001
    with (case.folder / "checkpoint.log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    assert [line["epoch"] for line in log] == ["1", "2", "3", "4"]
    assert list(log[0]) == ["epoch", "loss", "accuracy", "lr", "seconds"]


def test_same_seed_gives_the_same_bytes(case: Case) -> None:
    succeeds(case.cli("train"))
    first = case.checkpoint.read_bytes()
    succeeds(case.cli("train", "--overwrite"))
    assert case.checkpoint.read_bytes() == first
    succeeds(case.cli("train", "--overwrite", "--set", "training.seed=1"))
    assert case.checkpoint.read_bytes() != first


@pytest.mark.parametrize("after", [1, 3])
def test_interrupted_and_resumed_gives_the_same_bytes(case: Case, after: int) -> None:
    succeeds(case.cli("train"))
    whole = case.checkpoint.read_bytes()
    interrupted(case, after, "--overwrite")
    part = read_checkpoint(case.checkpoint)
    assert part.metadata["epoch"] == str(after)
    shown = succeeds(case.cli("train", "--resume")).stdout
    assert f"{EPOCHS} epochs" in shown
    assert case.checkpoint.read_bytes() == whole


def test_interrupt_in_the_first_epoch_leaves_nothing(case: Case) -> None:
    before = files(case.folder)
    interrupted(case, 0)
    assert files(case.folder) == before


def test_interrupted_checkpoint_can_be_scored_and_says_so(case: Case) -> None:
    interrupted(case, 2)
    outcome = succeeds(case.cli("score", "--run", case.run))
    assert "the checkpoint was interrupted after epoch 2 of 4" in outcome.stderr


def test_resume_of_a_finished_run_changes_nothing(case: Case) -> None:
    succeeds(case.cli("train"))
    before = files(case.folder)
    succeeds(case.cli("train", "--resume"))
    assert files(case.folder) == before


@pytest.mark.parametrize(
    "option",
    [
        "training.lr=0.02",
        "training.epochs=5",
        "training.seed=1",
        "learner.steps=1",
        "model.hidden=[9]",
        "compute.dtype=float64",
        "tasks.train=eval.npz",
    ],
)
def test_resume_with_another_recipe_or_other_tasks_is_refused(case: Case, option: str) -> None:
    interrupted(case, 1)
    before = files(case.folder)
    outcome = case.cli("train", "--resume", "--set", option)
    assert outcome.exit_code == 2
    assert "another recipe or other tasks" in outcome.error
    assert files(case.folder) == before


def test_resume_may_use_another_task_batch_and_evaluation_set(case: Case) -> None:
    interrupted(case, 1)
    options = ("compute.task_batch=1", "tasks.eval=train.npz")
    succeeds(case.cli("train", "--resume", *[p for o in options for p in ("--set", o)]))


def test_existing_checkpoint_is_not_overwritten(case: Case) -> None:
    case.checkpoint.write_bytes(b"mine")
    before = files(case.folder)
    outcome = case.cli("train")
    assert outcome.exit_code == 2
    assert "exists already" in outcome.error
    assert files(case.folder) == before


def state_of(seed: int) -> TrainingState:
    generator = torch.Generator().manual_seed(seed)

    def params() -> dict[str, torch.Tensor]:
        return {
            "a.weight": torch.randn(3, 2, generator=generator),
            "a.bias": torch.randn(3, generator=generator),
        }

    log = (Epoch(1, 1.25, 0.5, 0.01, 2.0), Epoch(2, 0.1 + 0.2, 0.75, 1e-5, 2.0))
    return TrainingState(params(), params(), params(), 7, log)


def files_of(folder: Path, **changes: Any) -> TrainingFiles:
    case = write_case(folder, changes)
    return TrainingFiles.of(load_config(case.config), digits()[0], source="")


def test_saved_state_reads_back_exactly(tmp_path: Path) -> None:
    training, state = files_of(tmp_path), state_of(0)
    training.save(state)
    read = training.load(state_of(1).params)
    assert (read.steps, read.log, read.epoch) == (7, state.log, 2)
    for part in ("params", "mean", "square"):
        saved, found = getattr(state, part), getattr(read, part)
        assert list(found) == list(saved)
        assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_another_model_source_is_another_run(tmp_path: Path) -> None:
    config, task_set = load_config(write_case(tmp_path, {}).config), digits()[0]
    one, other = (TrainingFiles.of(config, task_set, source) for source in ("a", "b"))
    assert one.fingerprint != other.fingerprint


def test_checkpoint_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = files_of(tmp_path)
    written: list[str] = []
    module = "metaaudit.training.checkpointing"
    for name in ("write_checkpoint", "write_text"):
        monkeypatch.setattr(f"{module}.{name}", lambda path, *_: written.append(path.name))
    training.save(state_of(0))
    assert written[-1] == "checkpoint.safetensors"
    assert len(written) == 3


def test_state_without_a_tensor_is_damaged(tmp_path: Path) -> None:
    training, state = files_of(tmp_path), state_of(0)
    training.save(state)
    with pytest.raises(CheckpointError, match=r"is damaged.*--overwrite"):
        training.load({**state.params, "more": torch.ones(1)})
