from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from metaaudit.errors import RunError
from metaaudit.pruning import PruneItem, make_plan
from metaaudit.runs.tables import InstanceRow
from tests.run_folder import instance_rows, task_rows, write_run


def places(items: tuple[PruneItem, ...]) -> list[tuple[str, str | None, int | None]]:
    return [(item.task_id, item.set, item.index) for item in items]


def flag(rows: list[InstanceRow], task_id: str, name: str) -> list[InstanceRow]:
    """Flags every instance of one set of one task."""
    return [
        dataclasses.replace(row, mislabeled=row.task_id == task_id and row.set == name)
        for row in rows
    ]


def test_tasks_by_influence_are_the_harmful_ones(tmp_path: Path) -> None:
    plan = make_plan(write_run(tmp_path / "run"), "tasks", "influence", 1.0)
    assert [item.task_id for item in plan.items] == ["task-0", "task-1"]
    assert (plan.total, plan.candidates, plan.left_out) == (8, 2, 0)
    assert "robust z 12.0" in plan.items[0].reason


def test_tasks_by_label_noise_go_noisiest_first(tmp_path: Path) -> None:
    tasks = [
        dataclasses.replace(row, label_noise=noise)
        for row, noise in zip(task_rows(4), (0.0, 0.1, 0.5, 0.1), strict=True)
    ]
    plan = make_plan(write_run(tmp_path / "run", tasks), "tasks", "label_noise", 1.0)
    assert [item.task_id for item in plan.items] == ["task-2", "task-1", "task-3"]


def test_instances_by_mislabel_score_are_the_flagged_ones(tmp_path: Path) -> None:
    plan = make_plan(write_run(tmp_path / "run"), "instances", "mislabel_score", 1.0)
    assert places(plan.items) == [("task-0", "support", 0), ("task-1", "support", 0)]
    assert plan.items[0].instance_id == "image-0-support-0"
    assert plan.total == 64


def test_a_positive_influence_alone_drops_no_instance(tmp_path: Path) -> None:
    rows = instance_rows(task_rows())
    assert sum(row.influence > 0 for row in rows) > 20
    plan = make_plan(write_run(tmp_path / "a"), "instances", "influence", 1.0)
    assert plan.candidates == 0
    rows[5] = dataclasses.replace(rows[5], influence=1.0)
    plan = make_plan(write_run(tmp_path / "b", None, rows), "instances", "influence", 1.0)
    assert places(plan.items) == [(rows[5].task_id, rows[5].set, rows[5].index)]


@pytest.mark.parametrize(
    ("fraction", "dropped"), [(0.1, 0), (0.124, 0), (0.125, 1), (0.26, 2), (1.0, 2)]
)
def test_the_cap_rounds_down_and_is_reported(tmp_path: Path, fraction: float, dropped: int) -> None:
    plan = make_plan(write_run(tmp_path / "run"), "tasks", "influence", fraction)
    assert [item.task_id for item in plan.items] == ["task-0", "task-1"][:dropped]
    assert plan.left_out == 2 - dropped


def test_the_cap_is_the_decimal_that_was_typed(tmp_path: Path) -> None:
    assert int(0.29 * 100) == 28
    run = write_run(tmp_path / "run", task_rows(n_tasks=100, harmful=50))
    assert len(make_plan(run, "tasks", "influence", 0.29).items) == 29


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_the_fraction_is_checked(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(RunError, match="above 0 and at most 1"):
        make_plan(write_run(tmp_path / "run"), "tasks", "influence", fraction)


@pytest.mark.parametrize(
    ("drop", "by"), [("tasks", "mislabel_score"), ("instances", "label_noise"), ("x", "influence")]
)
def test_invalid_combinations_name_the_valid_ones(tmp_path: Path, drop: Any, by: Any) -> None:
    with pytest.raises(RunError, match="--drop instances --by mislabel_score"):
        make_plan(write_run(tmp_path / "run"), drop, by, 0.5)


def test_one_task_must_be_left(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", task_rows(n_tasks=4, harmful=4))
    with pytest.raises(RunError, match="guard"):
        make_plan(run, "tasks", "influence", 1.0)
    assert len(make_plan(run, "tasks", "influence", 0.75).items) == 3


def test_every_class_keeps_a_support_instance(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None, flag(instance_rows(task_rows()), "task-3", "support"))
    plan = make_plan(run, "instances", "mislabel_score", 1.0)
    dropped = {item.index for item in plan.items}
    kept = {item.index for item in plan.kept}
    assert dropped | kept == {0, 1, 2, 3}
    assert {index % 2 for index in kept if index is not None} == {0, 1}  # labels alternate
    assert len(kept) == 2
    assert "last support instance of class" in plan.kept[0].reason


def test_every_task_keeps_a_query_instance(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None, flag(instance_rows(task_rows()), "task-3", "query"))
    plan = make_plan(run, "instances", "mislabel_score", 1.0)
    assert (len(plan.items), len(plan.kept)) == (3, 1)
    assert plan.kept[0].reason == "kept: last query instance of its task"


def test_kept_instances_do_not_use_up_the_cap(tmp_path: Path) -> None:
    rows = [dataclasses.replace(row, mislabeled=True) for row in instance_rows(task_rows())]
    plan = make_plan(write_run(tmp_path / "run", None, rows), "instances", "mislabel_score", 0.5)
    assert len(plan.items) == 32
    assert len(plan.items) + len(plan.kept) + plan.left_out == plan.candidates == 64


def test_json(tmp_path: Path) -> None:
    plan = make_plan(write_run(tmp_path / "run"), "instances", "mislabel_score", 0.02)
    value = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert value["schema_version"] == 1
    assert value["run"] == "run"
    assert value["counts"] == {
        "total": 64,
        "candidates": 2,
        "dropped": 1,
        "kept_by_guard": 0,
        "left_out_by_max_fraction": 1,
    }
    assert "retrained model" in value["note"]
    assert value["items"][0].keys() == {
        "task_id",
        "set",
        "index",
        "instance_id",
        "score",
        "reason",
    }
