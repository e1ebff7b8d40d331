"""Reference meta-training, and planted noise to test an audit with."""

from metaaudit.training.checkpointing import TrainingFiles, fingerprint
from metaaudit.training.meta_trainer import MetaTrainer
from metaaudit.training.planting import Planted, flip_labels, plant, planted
from metaaudit.training.state import Epoch, TrainingState
from metaaudit.training.trainable import check_trainable

__all__ = [
    "Epoch",
    "MetaTrainer",
    "Planted",
    "TrainingFiles",
    "TrainingState",
    "check_trainable",
    "fingerprint",
    "flip_labels",
    "plant",
    "planted",
]
