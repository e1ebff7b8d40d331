"""SIGKILL at random moments of training, scoring and reporting, of which nothing is to be seen.

``METAAUDIT_KILLS`` sets how many (4 by default); the moments follow from a fixed seed, and from the
machine's speed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.small import Case, digits, run_content, write_case

KILLS = int(os.environ.get("METAAUDIT_KILLS", "4"))
MAIN = """
from metaaudit import keeping
from metaaudit.cli import main

keeping.WORTH_S = 0.0
main()
"""


def train(case: Case) -> list[object]:
    """Goes on where there is something to go on from."""
    begun = case.checkpoint.with_suffix(".training.safetensors").exists()
    return ["train", case.config, "--resume" if begun else "--overwrite"]


def score(case: Case) -> list[object]:
    return ["score", case.config, "--run", case.run, "--resume"]


def report(case: Case) -> list[object]:
    return ["report", case.run, "-f", f"md={case.folder / 'report.md'}"]


COMMANDS = (train, score, report)


def start(arguments: list[object]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def result(case: Case) -> dict[str, Any]:
    """All that the commands wrote, without what is measured or names the folder."""
    found: dict[str, Any] = {f"run/{name}": it for name, it in run_content(case.run).items()}
    found["checkpoint"] = case.checkpoint.read_bytes()
    report = (case.folder / "report.md").read_text().splitlines()
    found["report"] = [line for line in report if not line.startswith("- time")]
    return found


def written(folder: Path) -> Case:
    train, evaluation = digits(n_train=11)
    changes = {"compute.task_batch": 2, "training.epochs": 8}
    return write_case(folder, changes, train=train, evaluation=evaluation)


@pytest.mark.slow
def test_random_kills_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "undisturbed"))
    case, took = written(tmp_path / "case"), []
    for command in COMMANDS:
        began, process = time.monotonic(), start(command(case))
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        took.append(time.monotonic() - began)
    expected = result(case)
    kept = (tmp_path / "case").rename(tmp_path / "expected")

    rng, kills, chains = random.Random(0), 0, 0
    while kills < KILLS:
        chains += 1
        monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / f"cache-{chains}"))
        case = written(tmp_path / "case")
        for command, usual in zip(COMMANDS, took, strict=True):
            while True:
                process = start(command(case))
                patience = usual * rng.uniform(0.1, 1.2) if kills < KILLS else 300
                try:
                    _, said = process.communicate(timeout=patience)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    kills += 1
                    continue
                assert process.returncode == 0, said
                break
        found = result(case)
        assert {name for name in expected if found[name] != expected[name]} == set()
        assert found.keys() == expected.keys()
        (tmp_path / "case").rename(kept.with_name(f"chain-{chains}"))
