"""Checkpoints: read without running their code, fitted to a network by name or order, written."""

from metaaudit.inputs.checkpoints.fitting import Fitted, fit_weights
from metaaudit.inputs.checkpoints.reading import Checkpoint, read_checkpoint
from metaaudit.inputs.checkpoints.target import Target
from metaaudit.inputs.checkpoints.writing import write_checkpoint

__all__ = ["Checkpoint", "Fitted", "Target", "fit_weights", "read_checkpoint", "write_checkpoint"]
