"""The experiment of every kind."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from metaaudit.fidelity.results import Result
from metaaudit.fidelity.workbench import Workbench


class Experiment(Protocol):
    """Asks one thing."""

    def __call__(self, bench: Workbench, config: Any, /) -> Result:
        """The answer, for the settings of its kind."""


def experiment(kind: str) -> Experiment:
    """What runs the experiments of a kind."""
    module = import_module(f"metaaudit.fidelity.experiments.{kind.replace('-', '_')}")
    found: Experiment = module.run
    return found
