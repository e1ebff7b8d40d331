"""Reference meta-training, and planted noise to test an audit with."""

from metaaudit.training.checkpointing import TrainingFiles
from metaaudit.training.meta_trainer import MetaTrainer
from metaaudit.training.planting import Planted, flip_labels, plant
from metaaudit.training.state import Epoch, TrainingState

__all__ = [
    "Epoch",
    "MetaTrainer",
    "Planted",
    "TrainingFiles",
    "TrainingState",
    "flip_labels",
    "plant",
]
