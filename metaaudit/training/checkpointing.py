"""A meta-training run on disk: a checkpoint to use, a state to resume from, a log to read."""

from __future__ import annotations

import glob
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from metaaudit import __version__
from metaaudit.config import Config
from metaaudit.errors import CheckpointError
from metaaudit.inputs.checkpoints import read_checkpoint, write_checkpoint
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params
from metaaudit.runs.atomic import write_text
from metaaudit.training.state import TrainingState


@dataclass(frozen=True)
class TrainingFiles:
    """The files of one run; all names derive from the checkpoint's.

    Attributes:
        checkpoint: The weights (safetensors), with the recipe in the metadata.
        recipe: Hyperparameters, as JSON.
        fingerprint: SHA-256 of all that the run depends on.
        snapshots: Every so many epochs a numbered checkpoint is kept; ``None``: none.
    """

    checkpoint: Path
    recipe: str
    fingerprint: str
    snapshots: int | None = None

    @classmethod
    def of(cls, config: Config, task_set: TaskSet, source: str) -> TrainingFiles:
        """The files of the run that ``config`` describes.

        Args:
            config: The configuration.
            task_set: The training tasks.
            source: Hash of the source code that defines the model.

        Raises:
            CheckpointError: There are several checkpoints, or the one is to have another format
                than safetensors.
        """
        if isinstance(config.checkpoint, list):
            raise CheckpointError(
                "checkpoint",
                f"names {len(config.checkpoint)} files",
                "the one that training is to write",
                "--set checkpoint=FILE, with a training.seed for each",
            )
        if config.checkpoint.suffix != ".safetensors":
            raise CheckpointError(
                config.checkpoint,
                f"training cannot write '{config.checkpoint.suffix}' files",
                "a name ending in .safetensors",
                "change checkpoint in the configuration",
            )
        sections = config.model_dump(mode="json", include={"model", "learner", "training"})
        del sections["training"]["snapshots"]  # which change nothing in what is learnt
        recipe = json.dumps(sections, sort_keys=True)
        depends_on = fingerprint(recipe, config, task_set, source)
        return cls(config.checkpoint, recipe, depends_on, config.training.snapshots)

    @property
    def state(self) -> Path:
        """Weights and optimiser state, to resume from."""
        return self.checkpoint.with_suffix(".training.safetensors")

    @property
    def log(self) -> Path:
        """The training log, CSV."""
        return self.checkpoint.with_suffix(".log.csv")

    def snapshot(self, epoch: int) -> Path:
        """The numbered checkpoint of an epoch."""
        return self.checkpoint.with_suffix(f".epoch-{epoch:03}.safetensors")

    def snapshot_epochs(self, last: int) -> list[int]:
        """Epochs up to ``last`` after which there is a numbered checkpoint."""
        return list(range(self.snapshots, last + 1, self.snapshots)) if self.snapshots else []

    def remove_snapshots(self) -> None:
        """Removes the numbered checkpoints of another run of this name."""
        name = glob.escape(self.checkpoint.stem)
        for path in sorted(self.checkpoint.parent.glob(f"{name}.epoch-*.safetensors")):
            if _is_snapshot(path):
                path.unlink()

    def save(self, state: TrainingState) -> None:
        """Writes all files, each atomically; the checkpoint last.

        A numbered one comes first: training that stops here and resumes writes it again.
        """
        metadata = {"metaaudit": __version__, "fingerprint": self.fingerprint}
        weights = {**metadata, "recipe": self.recipe, "epoch": str(state.epoch)}
        weights["lr"] = repr(state.log[-1].lr)
        if state.epoch in self.snapshot_epochs(state.epoch):
            kept = {**weights, "snapshot": "true"}
            write_checkpoint(self.snapshot(state.epoch), state.params, kept)
        write_checkpoint(self.state, state.tensors(), {**metadata, **state.metadata()})
        write_text(self.log, state.csv())
        write_checkpoint(self.checkpoint, state.params, weights)

    def load(self, like: Params) -> TrainingState:
        """Reads the state to resume from.

        Args:
            like: Parameters whose names, types and device the state is to have.

        Raises:
            CheckpointError: It is missing, damaged, or of a run with another recipe or other data.
        """
        saved = read_checkpoint(self.state)
        if saved.metadata.get("fingerprint") != self.fingerprint:
            raise CheckpointError(
                self.state,
                "was written with another recipe or other tasks",
                "the model, learner, training and tasks of this configuration",
                "train anew with --overwrite, or restore the configuration",
            )
        try:
            return TrainingState.restore(saved.weights, saved.metadata, like)
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                self.state, f"is damaged ({error})", remedy="train anew with --overwrite"
            ) from None


def fingerprint(recipe: str, config: Config, task_set: TaskSet, source: str) -> str:
    """SHA-256 of all that a run of a recipe, as a checkpoint has it, depends on."""
    parts = [recipe, config.compute.dtype, task_set.content_hash, source]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _is_snapshot(path: Path) -> bool:
    """Whether a file is a numbered checkpoint that training wrote."""
    try:
        return "snapshot" in read_checkpoint(path).metadata
    except CheckpointError:
        return False
