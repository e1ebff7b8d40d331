"""Retrainings that only wait, for processes that import this file."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from metaaudit.cache import Arrays
from metaaudit.config import Config
from metaaudit.config.training import TrainingConfig
from metaaudit.console import Messages
from metaaudit.fidelity.budget import Budget
from metaaudit.fidelity.schedule import CachedRun, Job, Schedule
from metaaudit.fidelity.training_run import TrainingRun, Work
from tests.small import digits, settings

LASTS = 668
"""A number of epochs that takes as good as forever."""

CONFIG = Config.model_validate_json(json.dumps(settings()))


class OddRun(TrainingRun):
    """Sleeps a hundredth of a second an epoch."""

    def arrays(self, work: Work) -> Arrays:
        epochs = work.training.epochs
        time.sleep(600 if epochs == LASTS else epochs / 100)
        return {"losses": np.full(2, float(epochs)), "seconds": np.array(epochs / 100)}


def schedule(folder: Path, epochs: Sequence[int], deadline: float | None = None) -> Schedule:
    """Jobs of so many hundredths of a second."""
    return Schedule(
        [job(each) for each in epochs],
        CachedRun(OddRun(CONFIG, digits()[0].pool, digits()[1]), folder, 1e9),
        Budget(deadline),
        Messages(Console(file=io.StringIO(), width=200)),
    )


def job(epochs: int) -> Job:
    """A job of so many hundredths of a second."""
    task = digits()[0].tasks[0]
    work = Work((task,), None, TrainingConfig(epochs=epochs), None)
    return Job({"epochs": epochs}, work, f"retraining of {epochs}")
