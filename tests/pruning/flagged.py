"""A scored case with flags of every kind, and what tests of pruning do with one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaaudit.runs.atomic import write_text
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow, csv_text
from tests.small import Case, cli, files, succeeds, write_case

NOISY = ("--drop", "tasks", "--by", "noisy", "--max-fraction", 0.5)


def flag(run: Path) -> None:
    """Flags some of everything in a run folder, whatever was found."""
    saved = SavedRun.open(run)
    tasks = [
        dataclasses.replace(
            row,
            kinds=("noisy", "contradictory", "outlier", "")[min(place, 3)],
            harmful=place == 1,
            label_noise=0.5 if place == 0 else 0.0,
        )
        for place, row in enumerate(saved.tasks)
    ]
    worst: set[str] = set()
    instances = []
    for row in saved.instances:
        # One support and one query instance of each of two tasks, and of a class with more.
        key = f"{row.task_id} {row.set}"
        chosen = key not in worst and len({*worst, key}) <= 4
        worst |= {key} if chosen else set()
        other = (row.label + 1) % 2
        suggested = other if chosen else row.label
        instances.append(dataclasses.replace(row, mislabeled=chosen, suggested_label=suggested))
    ids = {row.instance_id for row in instances if row.mislabeled}
    items = [
        dataclasses.replace(row, mislabeled=row.instance_id in ids, flagged=1)
        for row in saved.items
    ]
    write_text(run / "tasks.csv", csv_text(TaskRow, tasks))
    write_text(run / "instances.csv", csv_text(InstanceRow, instances))
    write_text(run / "items.csv", csv_text(ItemRow, items))


def audited_case(folder: Path) -> Case:
    """A trained and scored case with flags of every kind: read it, never write to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAAUDIT_CACHE_DIR", str(folder / "factor-cache"))
        case = write_case(folder / "case", {"influence.curvature": "ggn"})
        succeeds(case.cli("train"))
        flag(case.score())
    return case


def copied(case: Case, folder: Path) -> Case:
    """A copy for one test; its run names the data of the original."""
    return Case(shutil.copytree(case.folder, folder / "case"))


def plan_in(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "prune.json").read_text(encoding="utf-8"))
    return found


def refused(case: Case, *args: object) -> str:
    """The one line of a command that must end with 2 and write nothing."""
    before = files(case.folder)
    outcome = cli("prune", case.run, *args)
    assert outcome.exit_code == 2, outcome
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert files(case.folder) == before
    return outcome.error


def change_manifest(case: Case, change: Callable[[dict[str, Any]], object]) -> None:
    path = case.run / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
