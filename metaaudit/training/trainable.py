"""What the reference meta-trainer cannot train."""

from __future__ import annotations

from metaaudit.config.model import ModelConfig
from metaaudit.errors import ConfigError


def check_trainable(model: ModelConfig) -> None:
    """Refuses a model whose normalisation has statistics that training would have to keep.

    Raises:
        ConfigError: It has.
    """
    if model.statistics == "running":
        raise ConfigError(
            "model.statistics",
            "is running, which are of a checkpoint and which this training does not update",
            "batch, to train",
            "remove it",
        )
