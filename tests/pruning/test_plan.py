from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from metaaudit.errors import RunError
from metaaudit.pruning import PruneItem, make_plan
from metaaudit.pruning.candidates import CANDIDATES
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow
from tests.run_folder import instance_rows, task_rows, write_run


def places(items: tuple[PruneItem, ...]) -> list[tuple[str, str | None, int | None]]:
    return [item.place for item in items]


def flag(rows: list[InstanceRow], task_id: str, name: str) -> list[InstanceRow]:
    """Flags every instance of one set of one task, and no other, each for the other class."""
    return [
        dataclasses.replace(
            row,
            mislabeled=row.task_id == task_id and row.set == name,
            suggested_label=1 - row.label,
        )
        for row in rows
    ]


def repeating(run: Path) -> SavedRun:
    """A run whose tasks 5 and 1 repeat task 3, in another order, and 4 repeats 6."""
    tasks = [dataclasses.replace(row, kinds="", duplicates=0) for row in task_rows()]
    for copy, original in ((5, 3), (1, 3), (3, 3), (4, 6), (6, 6)):
        tasks[copy] = dataclasses.replace(
            tasks[copy], kinds="noisy duplicate", duplicates=2 if original == 3 else 1
        )
    same = {"task-5": "task-3", "task-1": "task-3", "task-4": "task-6"}
    instances = []
    for row in instance_rows(tasks):
        original = same.get(row.task_id, row.task_id).removeprefix("task-")
        index = row.index if row.task_id == f"task-{original}" else 3 - row.index
        image = f"image-{original}-{row.set}-{index}"
        instances.append(dataclasses.replace(row, instance_id=image))
    return write_run(run, tasks, instances[::-1])  # so that their order tells nothing


@pytest.mark.parametrize(
    ("by", "expected", "reason"),
    [
        ("influence", [0, 1], "harmful, robust z 12.0"),
        ("harmful", [0, 1], "harmful, robust z 12.0"),
        ("label_noise", [0, 1], "an estimated 25% of labels are wrong"),
        ("noisy", [0, 1], "noisy, an estimated 25% of labels"),
        ("contradictory", [4], "log likelihood ratio 30.0"),
        ("outlier", [5], "robust z 9.0 of the loss"),
    ],
)
def test_tasks_go_by_score_or_rule(
    tmp_path: Path, by: Any, expected: list[int], reason: str
) -> None:
    plan = make_plan(write_run(tmp_path / "run"), "tasks", by, 1.0)
    assert [item.task_id for item in plan.items] == [f"task-{row}" for row in expected]
    assert reason in plan.items[0].reason
    assert plan.items[0].q_value in (0.01, 0.001)
    assert (plan.counts.total, plan.counts.candidates) == (8, len(expected))
    assert plan.counts.dropped == len(expected)


@pytest.mark.parametrize(
    ("by", "attribute"),
    [
        ("harmful", "influence"),
        ("label_noise", "label_noise"),
        ("noisy", "label_noise"),
        ("contradictory", "contradiction"),
        ("outlier", "outlier_z"),
    ],
)
def test_the_worst_task_comes_first(tmp_path: Path, by: Any, attribute: str) -> None:
    tasks = [
        dataclasses.replace(
            row, kinds="outlier noisy contradictory", harmful=True, **{attribute: score}
        )
        for row, score in zip(task_rows(4), (0.3, 0.1, 0.5, 0.1), strict=True)
    ]
    plan = make_plan(write_run(tmp_path / "run", tasks), "tasks", by, 0.75)
    assert [item.task_id for item in plan.items] == ["task-2", "task-0", "task-1"]
    assert [item.score for item in plan.items] == [0.5, 0.3, 0.1]


def test_of_duplicates_the_first_by_id_stays(tmp_path: Path) -> None:
    plan = make_plan(repeating(tmp_path / "run"), "tasks", "duplicate", 1.0)
    assert [item.task_id for item in plan.items] == ["task-3", "task-5", "task-6"]
    assert "has the images of task-1, which stays" in plan.items[0].reason
    assert "has the images of task-4, which stays" in plan.items[2].reason
    assert plan.items[0].q_value is None


def test_tasks_that_are_not_flagged_are_no_duplicates(tmp_path: Path) -> None:
    rows = [dataclasses.replace(row, instance_id="image") for row in instance_rows(task_rows())]
    tasks = [dataclasses.replace(row, kinds="noisy") for row in task_rows()]
    plan = make_plan(write_run(tmp_path / "run", tasks, rows), "tasks", "duplicate", 1.0)
    assert plan.items == ()


def test_instances_by_mislabel_score_are_the_flagged_ones(tmp_path: Path) -> None:
    plan = make_plan(write_run(tmp_path / "run"), "instances", "mislabel_score", 1.0)
    assert places(plan.items) == [("task-0", "support", 0), ("task-1", "support", 0)]
    first = plan.items[0]
    assert (first.instance_id, first.label, first.new_label) == ("image-0-support-0", 0, None)
    assert first.q_value == 0.01
    assert first.reason == "mislabeled, labelled 0, suggested 1"
    assert plan.counts.total == 64


def test_instances_by_item_go_wherever_the_item_is(tmp_path: Path) -> None:
    path = tmp_path / "run"
    rows = instance_rows(task_rows())
    worst = rows[0]
    # The same image once more, where it is not flagged itself.
    rows[40] = dataclasses.replace(rows[40], instance_id=worst.instance_id, mislabeled=False)
    run = write_run(path, None, rows)
    item = dataclasses.replace(run.items[0], occurrences=2, flagged=1, label="a | b")
    others = [one for one in run.items[1:] if one.instance_id != worst.instance_id]
    run = dataclasses.replace(run, items=[item, *others])
    plan = make_plan(run, "instances", "mislabeled", 1.0)
    both = {
        (worst.task_id, worst.set, worst.index),
        (rows[40].task_id, rows[40].set, rows[40].index),
    }
    assert set(places(plan.items[:2])) == both
    assert "mislabeled in 1 of 2 places, labelled a | b, suggested 1" in plan.items[0].reason
    assert len(plan.items) == 3


def test_a_positive_influence_alone_drops_no_instance(tmp_path: Path) -> None:
    rows = instance_rows(task_rows())
    assert sum(row.influence > 0 for row in rows) > 20
    plan = make_plan(write_run(tmp_path / "a"), "instances", "influence", 1.0)
    assert plan.counts.candidates == 0
    rows[5] = dataclasses.replace(rows[5], influence=1.0)
    plan = make_plan(write_run(tmp_path / "b", None, rows), "instances", "influence", 1.0)
    assert places(plan.items) == [(rows[5].task_id, rows[5].set, rows[5].index)]


def test_flagged_labels_are_changed_to_the_suggested_ones(tmp_path: Path) -> None:
    plan = make_plan(write_run(tmp_path / "run"), None, "mislabeled", 1.0)
    assert places(plan.items) == [("task-0", "support", 0), ("task-1", "support", 0)]
    assert {(item.kind, item.label, item.new_label) for item in plan.items} == {("relabel", 0, 1)}
    assert (plan.counts.dropped, plan.counts.relabeled) == (0, 2)
    assert plan.subject == "instances"


def test_a_suggested_label_that_is_the_given_one_changes_nothing(tmp_path: Path) -> None:
    rows = [
        dataclasses.replace(row, suggested_label=row.label) for row in instance_rows(task_rows())
    ]
    assert make_plan(write_run(tmp_path / "run", None, rows), None, "mislabeled", 1.0).items == ()


@pytest.mark.parametrize(
    ("fraction", "dropped"), [(0.1, 0), (0.124, 0), (0.125, 1), (0.26, 2), (1.0, 2)]
)
def test_the_cap_rounds_down_and_is_reported(tmp_path: Path, fraction: float, dropped: int) -> None:
    plan = make_plan(write_run(tmp_path / "run"), "tasks", "influence", fraction)
    assert [item.task_id for item in plan.items] == ["task-0", "task-1"][:dropped]
    assert plan.counts.left_out_by_max_fraction == 2 - dropped


def test_the_cap_is_the_decimal_that_was_typed(tmp_path: Path) -> None:
    assert int(0.29 * 100) == 28
    run = write_run(tmp_path / "run", task_rows(n_tasks=100, harmful=50))
    assert len(make_plan(run, "tasks", "influence", 0.29).items) == 29


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_the_fraction_is_checked(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(RunError, match="above 0 and at most 1"):
        make_plan(write_run(tmp_path / "run"), "tasks", "influence", fraction)


@pytest.mark.parametrize("least", [0, -1])
def test_the_least_per_class_is_checked(tmp_path: Path, least: int) -> None:
    with pytest.raises(RunError, match=r"--min-per-class: .*at least 1"):
        make_plan(write_run(tmp_path / "run"), "instances", "influence", 0.5, least)


@pytest.mark.parametrize(
    ("drop", "by"),
    [("tasks", "mislabel_score"), ("instances", "noisy"), ("x", "influence"), ("tasks", "x")],
)
def test_invalid_combinations_name_the_valid_ones(tmp_path: Path, drop: Any, by: Any) -> None:
    with pytest.raises(RunError, match="--drop instances --by mislabel_score") as caught:
        make_plan(write_run(tmp_path / "run"), drop, by, 0.5)
    assert all(name in str(caught.value) for what, name in CANDIDATES if what == "tasks")


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


@pytest.mark.parametrize("drop", ["instances", None])
def test_a_guard_that_keeps_every_candidate_stops_the_plan(tmp_path: Path, drop: Any) -> None:
    by: Any = "mislabel_score" if drop else "mislabeled"
    run = write_run(tmp_path / "run")
    assert make_plan(run, drop, by, 1.0, min_per_class=1).items
    with pytest.raises(RunError, match=r"keeps all 2 candidates .*needs 2 support.*lower"):
        make_plan(run, drop, by, 1.0, min_per_class=2)


@pytest.mark.parametrize("name", ["support", "query"])
def test_relabelling_never_empties_a_class_of_the_support(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", None, flag(instance_rows(task_rows()), "task-3", name))
    plan = make_plan(run, None, "mislabeled", 1.0)
    # A support instance that moves makes room for one of the class that it moves to.
    left = {0: 2, 1: 2}
    for item in plan.items if name == "support" else ():
        assert item.label is not None and item.new_label is not None
        left[item.label] -= 1
        left[item.new_label] += 1
        assert min(left.values()) >= 1
    assert len(plan.items) >= 3


def test_a_label_that_the_support_does_not_have_is_not_given(tmp_path: Path) -> None:
    rows = [dataclasses.replace(row, suggested_label=7) for row in instance_rows(task_rows())]
    run = write_run(tmp_path / "run", None, rows)
    with pytest.raises(RunError, match="no support instance of its task has label 7"):
        make_plan(run, None, "mislabeled", 1.0)


def test_kept_instances_do_not_use_up_the_cap(tmp_path: Path) -> None:
    rows = [dataclasses.replace(row, mislabeled=True) for row in instance_rows(task_rows())]
    plan = make_plan(write_run(tmp_path / "run", None, rows), "instances", "mislabel_score", 0.5)
    assert len(plan.items) == 32
    left_out = plan.counts.left_out_by_max_fraction
    assert len(plan.items) + len(plan.kept) + left_out == plan.counts.candidates == 64


def test_json(tmp_path: Path) -> None:
    plan = make_plan(write_run(tmp_path / "run"), "instances", "mislabel_score", 0.02)
    value = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert value["schema_version"] == 2
    assert value["run"] == "run"
    assert value["counts"] == {
        "total": 64,
        "candidates": 2,
        "dropped": 1,
        "relabeled": 0,
        "kept_by_guard": 0,
        "left_out_by_max_fraction": 1,
    }
    assert "noisy is not always harmful" in value["note"]
    assert [line.split()[:3] for line in value["check"]] == [
        ["metaaudit", "train", "CONFIG"],
        ["metaaudit", "score", "CONFIG"],
    ]
    assert value["items"][0] == {
        "kind": "drop",
        "task_id": "task-0",
        "set": "support",
        "index": 0,
        "instance_id": "image-0-support-0",
        "label": 0,
        "new_label": None,
        "score": 0.99,
        "q_value": 0.01,
        "reason": "mislabeled, labelled 0, suggested 1",
    }
