"""What the key of a kept retraining knows of the code."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import metaaudit
from metaaudit.config import load_config
from metaaudit.curvature import code_hash
from metaaudit.fidelity.training_run import COMPUTING, TrainingRun, Work
from metaaudit.loading import prepare
from tests.small import write_case

ROOT = Path(metaaudit.__file__).parent

LEARNERS: list[dict[str, Any]] = [
    *({"name": name, "inner_lr": 0.3, "steps": 2} for name in ("maml", "fomaml", "reptile")),
    {"name": "anil", "inner_lr": 0.3, "steps": 2},
    {"name": "meta-sgd", "inner_lr": 0.3, "steps": 2},
    {"name": "imaml", "inner_lr": 0.3, "steps": 3, "proximity": 1.0},
    {"name": "protonet"},
    {"name": "ridge"},
]

COMPUTES_NOTHING = ("cache/", "config/", "curvature/")
"""Where the recipe is read, whose values are in the key themselves, and put together."""


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner["name"])
def test_all_code_that_runs_is_in_the_key(tmp_path: Path, learner: dict[str, Any]) -> None:
    case = write_case(tmp_path, {"learner": learner, "training.epochs": 1})
    problem = prepare(load_config(case.config))
    run = TrainingRun(problem.config, problem.train.pool, problem.evaluation)
    seen: set[str] = set()

    def watch(frame: FrameType, *_: object) -> None:
        seen.add(frame.f_code.co_filename)

    sys.setprofile(watch)
    try:
        run.arrays(Work(problem.train.tasks, None, problem.config.training, None))
    finally:
        sys.setprofile(None)
    ran = {str(Path(name).relative_to(ROOT)) for name in seen if name.startswith(str(ROOT))}
    assert {"training/meta_trainer.py", "bilevel/query_outcome.py"} <= ran
    known = {str(path.relative_to(ROOT)) for pattern in COMPUTING for path in ROOT.glob(pattern)}
    assert {name for name in ran - known if not name.startswith(COMPUTES_NOTHING)} == set()


def test_hash_of_code_is_of_the_files_that_are_named() -> None:
    assert all(list(ROOT.glob(pattern)) for pattern in COMPUTING)
    hashes = {code_hash(), code_hash(COMPUTING), code_hash(COMPUTING[1:]), code_hash(("cli.py",))}
    assert len(hashes) == 4
