"""A tiny smooth problem with a checkpoint, in float64, as experiments on approximations meet it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metaaudit.cache import FactorCache, cache_folder
from metaaudit.config import load_config
from metaaudit.console import Messages
from metaaudit.fidelity.retraining import Retrainer
from metaaudit.fidelity.workbench import Workbench
from metaaudit.loading import load_weights, prepare
from tests.small import Case, digits, succeeds, write_case

SMOOTH = {
    "model": {
        "name": "conv4",
        "hidden": 2,
        "blocks": 2,
        "ways": 3,
        "norm": "none",
        "activation": "softplus",
        "features": "mean",
        "gain": 2.0,
    },
    "compute.dtype": "float64",
    "training.weight_decay": 0.01,
    "training.epochs": 3,
}
"""67 parameters."""


def trained(folder: Path, changes: dict[str, Any] | None = None) -> Case:
    """The case of ``SMOOTH``, trained."""
    train, evaluation = digits(n_train=8, n_eval=3)
    case = write_case(folder, {**SMOOTH, **(changes or {})}, train=train, evaluation=evaluation)
    succeeds(case.cli("train"))
    return case


def bench(case: Case) -> Workbench:
    """What the experiments get."""
    problem = prepare(load_config(case.config))
    cache, messages = FactorCache(cache_folder()), Messages()
    retrainer = Retrainer(problem, cache, messages)
    return Workbench(problem, (load_weights(problem),), cache, messages, retrainer)
