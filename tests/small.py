"""A small real case: tasks of scikit-learn's digits, a configuration, and the command line."""

from __future__ import annotations

import copy
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from metaaudit.cli import app
from metaaudit.demo.digits import digit_tasks
from metaaudit.inputs.episodes import write_episodes
from metaaudit.inputs.task_set import TaskSet

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Where data sets that are not in the repository are looked for."""

WAYS, SHOTS, QUERIES = 3, 2, 2

SETTINGS: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [8], "ways": WAYS},
    "learner": {"name": "maml", "inner_lr": 0.3, "steps": 2},
    "checkpoint": "checkpoint.safetensors",
    "tasks": {"format": "episodes", "train": "train.npz", "eval": "eval.npz"},
    "training": {"epochs": 2, "batch": 4, "lr": 0.01, "weight_decay": 0.001, "seed": 0},
    "mislabel": {"folds": 4},
    "compute": {"device": "cpu"},
}
"""The configuration of a case, unless it is told otherwise."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        exit_code: Its exit code.
        stdout: What it printed as results.
        stderr: What it printed beside them.
    """

    exit_code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that tells what was wrong; fails if there is not exactly one."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.stderr
        return lines[0]


@dataclass(frozen=True)
class Case:
    """A folder with tasks and a configuration.

    Attributes:
        folder: Where everything is.
    """

    folder: Path

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / "metaaudit.yaml"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that ``train`` writes and ``score`` reads."""
        return self.folder / "checkpoint.safetensors"

    @property
    def run(self) -> Path:
        """A name for a run folder."""
        return self.folder / "run"

    def cli(self, command: str, *args: object) -> Outcome:
        """Calls a command of ``metaaudit`` with this case's configuration."""
        return cli(command, self.config, *args)

    def score(self, name: str = "run", *args: object) -> Path:
        """Scores into a folder of that name, which must succeed."""
        run = self.folder / name
        succeeds(self.cli("score", "--run", run, *args))
        return run


MEASURED = ("timings_s", "peak_memory_mb", "cache")
"""What the manifest of a run tells of how it went, not of what came of it."""

LABEL_STAGES = (
    "support cross-fitting",
    "adapted fit",
    "cross-fitting",
    "support cross-fitting of evaluation tasks",
    "adapted fit of evaluation tasks",
    "cross-fitting of evaluation tasks",
)
"""What scoring computes of labels and caches, in this order."""


@functools.cache
def digits(
    n_train: int = 8,
    n_eval: int = 3,
    ways: int = WAYS,
    shots: int = SHOTS,
    queries: int = QUERIES,
    seed: int = 0,
) -> tuple[TaskSet, TaskSet]:
    """Training and evaluation tasks."""
    return digit_tasks(
        n_train=n_train, n_eval=n_eval, ways=ways, shots=shots, queries=queries, seed=seed
    )


def settings(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``SETTINGS`` with some values changed, by dotted key; ``None`` removes a key."""
    result = copy.deepcopy(SETTINGS)
    for dotted, value in (changes or {}).items():
        *sections, key = dotted.split(".")
        section = result
        for name in sections:
            section = section.setdefault(name, {})
        if value is None:
            section.pop(key)
        else:
            section[key] = value
    return result


def write_case(
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    train: TaskSet | None = None,
    evaluation: TaskSet | None = None,
) -> Case:
    """Writes tasks and configuration.

    Args:
        folder: A folder; made if need be.
        changes: Changed settings, by dotted key.
        train: Training tasks; 8 tasks of digits by default.
        evaluation: Evaluation tasks; 3 by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_episodes(folder / "train.npz", train or digits()[0])
    write_episodes(folder / "eval.npz", evaluation or digits()[1])
    case = Case(folder)
    case.config.write_text(yaml.safe_dump(settings(changes)), encoding="utf-8")
    return case


def cli(*args: object) -> Outcome:
    """Runs ``metaaudit`` in this process; an exception that would escape it is raised here."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    return Outcome(result.exit_code, result.stdout, result.stderr)


def shell(*args: object, **options: Any) -> Outcome:
    """Runs ``metaaudit`` as a process of its own."""
    command = [sys.executable, "-m", "metaaudit", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    return Outcome(done.returncode, done.stdout, done.stderr)


def succeeds(outcome: Outcome) -> Outcome:
    """Fails with all that a command printed, if it did not end with 0."""
    assert outcome.exit_code == 0, f"exit {outcome.exit_code}\n{outcome.stdout}{outcome.stderr}"
    return outcome


def files(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, hidden ones too, with the content of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def run_content(run: Path) -> dict[str, Any]:
    """Every file of a run, without what is measured."""
    found: dict[str, Any] = dict(files(run))
    manifest = json.loads((run / "manifest.json").read_text())
    found["manifest.json"] = {k: v for k, v in manifest.items() if k not in MEASURED}
    return found
