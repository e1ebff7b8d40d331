"""A meta-training run on disk: a checkpoint to use, a state to resume from, a log to read."""

from __future__ import annotations

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
    """

    checkpoint: Path
    recipe: str
    fingerprint: str

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
        recipe = json.dumps(sections, sort_keys=True)
        parts = [recipe, config.compute.dtype, task_set.content_hash, source]
        fingerprint = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return cls(config.checkpoint, recipe, fingerprint)

    @property
    def state(self) -> Path:
        """Weights and optimiser state, to resume from."""
        return self.checkpoint.with_suffix(".training.safetensors")

    @property
    def log(self) -> Path:
        """The training log, CSV."""
        return self.checkpoint.with_suffix(".log.csv")

    def save(self, state: TrainingState) -> None:
        """Writes all three files, each atomically; the checkpoint last."""
        metadata = {"metaaudit": __version__, "fingerprint": self.fingerprint}
        write_checkpoint(self.state, state.tensors(), {**metadata, **state.metadata()})
        write_text(self.log, state.csv())
        metadata |= {"recipe": self.recipe, "epoch": str(state.epoch)}
        write_checkpoint(self.checkpoint, state.params, metadata)

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
