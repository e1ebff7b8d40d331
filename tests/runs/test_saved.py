"""Run folders that lack something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metaaudit.errors import RunError
from metaaudit.runs.saved import FILES, SavedRun, check_output
from tests.run_folder import write_run

KEYS = [
    ("manifest.json", "coverage"),
    ("manifest.json", "coverage.eval_tasks"),
    ("manifest.json", "solver"),
    ("manifest.json", "solver.residual_history"),
    ("manifest.json", "evaluation.mean_loss"),
    ("manifest.json", "data.train.sha256"),
    ("manifest.json", "config"),
    ("manifest.json", "warnings"),
    ("findings.json", "counts"),
    ("findings.json", "counts.flagged"),
    ("findings.json", "warnings"),
]


@pytest.mark.parametrize(("name", "dotted"), KEYS, ids=[f"{name}:{key}" for name, key in KEYS])
def test_missing_key_is_named(tmp_path: Path, name: str, dotted: str) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / name
    value = json.loads(path.read_text())
    *sections, key = dotted.split(".")
    holder = value
    for section in sections:
        holder = holder[section]
    del holder[key]
    path.write_text(json.dumps(value))
    with pytest.raises(RunError, match=rf"{name}: lacks {dotted}.*score again"):
        SavedRun.open(tmp_path / "run")


def test_section_of_another_type_lacks_its_keys(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"coverage": [1, 2]}))
    with pytest.raises(RunError, match=r"lacks coverage.tasks, coverage.instances"):
        SavedRun.open(tmp_path / "run")


@pytest.mark.parametrize("name", FILES)
def test_own_files_are_no_output(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    write_run(run)
    (tmp_path / "link").symlink_to(run / name)
    for path in (run / name, run / ".." / "run" / name, tmp_path / "link"):
        with pytest.raises(RunError, match="is a file of the run itself"):
            check_output(run, path)
    check_output(run, run / "report.html")
    check_output(run, tmp_path / name)
