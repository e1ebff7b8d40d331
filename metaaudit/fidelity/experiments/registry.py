"""The experiment of every kind."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from metaaudit.fidelity.results import Result
from metaaudit.fidelity.workbench import Workbench, configured
from metaaudit.problem import Problem
from metaaudit.training import check_trainable

RETRAINING = ("lds", "editing", "harmful", "noise-images")
"""Kinds that retrain."""


class Experiment(Protocol):
    """Asks one thing."""

    def __call__(self, bench: Workbench, config: Any, /) -> Result:
        """The answer, for the settings of its kind."""


def experiment(kind: str) -> Experiment:
    """What runs the experiments of a kind."""
    found: Experiment = _module(kind).run
    return found


def check(problem: Problem, config: Any) -> None:
    """Refuses an experiment that could not be done, before anything takes long.

    Args:
        problem: What it would be done with.
        config: The settings of its kind.

    Raises:
        MetaauditError: A candidate, the model, the learner or the tasks do not suit it.
    """
    reference = [config.reference] if config.kind == "agreement" else []
    for candidate in (*reference, *(getattr(config, "candidates", None) or ())):
        configured(problem.config, candidate)
    if config.kind in RETRAINING:
        check_trainable(problem.config.model)
    own = getattr(_module(config.kind), "check", None)
    if own is not None:
        own(problem, config)


def _module(kind: str) -> ModuleType:
    return import_module(f"metaaudit.fidelity.experiments.{kind.replace('-', '_')}")
