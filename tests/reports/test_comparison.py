from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from metaaudit.findings import Finding
from metaaudit.reports import compare
from metaaudit.reports.comparison import Comparison, sentences, spearman
from metaaudit.runs.saved import SavedRun
from tests.reports.outcomes import tasks_and_a_borderline_one
from tests.run_folder import instance_rows, task_rows, write_run


def with_findings(run: SavedRun, found: list[Finding]) -> SavedRun:
    return dataclasses.replace(run, findings=run.findings.model_copy(update={"findings": found}))


def with_manifest(run: SavedRun, **changes: Any) -> SavedRun:
    return dataclasses.replace(run, manifest={**run.manifest, **changes})


def subjects(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(one.rule, one.subject) for one in found]


def test_a_run_is_like_itself(tmp_path: Path) -> None:
    tasks = tasks_and_a_borderline_one()
    run = write_run(tmp_path / "run", tasks)
    found = compare(run, write_run(tmp_path / "earlier", tasks))
    flagged = tuple(one for one in run.findings.findings if one.flagged)
    assert found == Comparison(
        other="earlier",
        appeared=(),
        vanished=(),
        stayed=flagged,
        rank_correlation=pytest.approx(1.0),
        common_tasks=8,
        only_here=0,
        only_there=0,
        settings=(),
        data_changed=False,
        checkpoints_changed=False,
    )
    assert len(flagged) < len(run.findings.findings)  # a borderline one is no finding here


def test_findings_that_come_go_and_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", task_rows(harmful=3))
    found = compare(run, write_run(tmp_path / "other", task_rows(harmful=2)))
    assert ("harmful", "task-2") in subjects(found.appeared)
    assert subjects(found.vanished) == [("duplicate", "task-2")]
    assert ("harmful", "task-0") in subjects(found.stayed)
    assert ("harmful", "task-2") not in subjects(found.stayed)
    back = compare(write_run(tmp_path / "other", task_rows(harmful=2)), run)
    assert (back.appeared, back.vanished) == (found.vanished, found.appeared)


@pytest.mark.parametrize(
    ("here", "there", "expected"), [(3, 1, (2, 0, 1)), (1, 3, (0, 2, 1)), (2, 2, (0, 0, 2))]
)
def test_findings_with_one_fingerprint_match_one_by_one(
    tmp_path: Path, here: int, there: int, expected: tuple[int, int, int]
) -> None:
    run = write_run(tmp_path / "run")
    one = run.findings.findings[0]
    found = compare(with_findings(run, [one] * here), with_findings(run, [one] * there))
    assert (len(found.appeared), len(found.vanished), len(found.stayed)) == expected


def test_findings_match_whatever_their_names_and_scores(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    other = [
        one.model_copy(update={"subject": f"new-{one.subject}", "score": one.score / 2})
        for one in reversed(run.findings.findings)
    ]
    found = compare(run, with_findings(run, other))
    assert not found.appeared
    assert not found.vanished
    assert all(not one.subject.startswith("new") for one in found.stayed)


def test_only_tasks_in_both_are_ranked(tmp_path: Path) -> None:
    tasks = task_rows()
    order = [*tasks[3:], tasks[2], dataclasses.replace(tasks[0], task_id="another")]
    others = [dataclasses.replace(row, influence=-float(n)) for n, row in enumerate(order)]
    found = compare(write_run(tmp_path / "run"), write_run(tmp_path / "other", others))
    assert (found.common_tasks, found.only_here, found.only_there) == (6, 2, 1)
    # Of six tasks, one falls from the first place to the last and five rise by one.
    assert found.rank_correlation == pytest.approx(1 - 6 * (5**2 + 5) / (6 * (6**2 - 1)))


def test_runs_without_a_common_task_have_no_correlation(tmp_path: Path) -> None:
    renamed = [dataclasses.replace(row, task_id=f"x{row.task_id}") for row in task_rows()]
    found = compare(write_run(tmp_path / "run"), write_run(tmp_path / "other", renamed))
    assert (found.rank_correlation, found.common_tasks) == (None, 0)
    assert "rank correlation" not in " ".join(sentences(found))


@pytest.mark.parametrize("levels", [3, 1000])
def test_spearman_is_that_of_scipy(levels: int) -> None:
    x, y = np.random.default_rng(0).integers(0, levels, (2, 50)).astype(float).tolist()
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0, math.nan], [1.0, 2.0])],
    ids=["none", "one", "constant", "not finite"],
)
def test_spearman_needs_something_to_rank(x: list[float], y: list[float]) -> None:
    assert spearman(x, y) is None


def test_settings_that_differ(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    config = {
        **run.manifest["config"],
        "learner": {"name": "maml", "inner_lr": 0.1},
        "checkpoint": "/secret/place/model.pt",
        "tasks": {"rotations": [90, 180]},
    }
    found = compare(run, with_manifest(run, config=config))
    assert found.settings == (
        ("checkpoint", "absent", ".../model.pt"),
        ("learner.inner_lr", "0.4", "0.1"),
        ("learner.steps", "3", "absent"),
        ("tasks.rotations", "absent", "[90, 180]"),
    )


@pytest.mark.parametrize("part", ["train", "eval"])
def test_other_data_is_noticed(tmp_path: Path, part: str) -> None:
    run = write_run(tmp_path / "run")
    data = {**run.manifest["data"], part: {**run.manifest["data"][part], "sha256": "e" * 64}}
    found = compare(run, with_manifest(run, data=data))
    assert found.data_changed
    assert "The content of the tasks differs." in sentences(found)


def test_other_checkpoints_are_noticed_by_content(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    both = [{"path": "a", "sha256": "a" * 64}, {"path": "b", "sha256": "b" * 64}]
    first = with_manifest(run, checkpoints=both)
    moved = [{**one, "path": "elsewhere"} for one in reversed(both)]
    assert not compare(first, with_manifest(run, checkpoints=moved)).checkpoints_changed
    assert compare(first, with_manifest(run, checkpoints=both[:1])).checkpoints_changed
    assert compare(first, run).checkpoints_changed


def test_every_flagged_finding_is_told_once(tmp_path: Path) -> None:
    tasks = task_rows(harmful=1)
    other = write_run(tmp_path / "other", tasks, instance_rows(tasks, mislabeled=4))
    run = write_run(tmp_path / "run")
    found = compare(run, other)
    here = Counter(one.fingerprint for one in run.findings.findings if one.flagged)
    there = Counter(one.fingerprint for one in other.findings.findings if one.flagged)
    stayed = Counter(one.fingerprint for one in found.stayed)
    assert here == stayed + Counter(one.fingerprint for one in found.appeared)
    assert there == stayed + Counter(one.fingerprint for one in found.vanished)
