"""Plans that a person changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaaudit.errors import RunError
from metaaudit.pruning import check_plan, make_plan, read_plan
from metaaudit.pruning.plan import Subject
from metaaudit.runs.atomic import write_json
from tests.pruning.test_plan import flag, repeating
from tests.run_folder import instance_rows, task_rows, write_run

Change = Callable[[dict[str, Any]], object]


def edited(
    folder: Path, change: Change, drop: Subject | None = None, by: Any = "mislabeled"
) -> Path:
    """The file of a plan of ``folder / "run"``, changed."""
    value = make_plan(write_run(folder / "run"), drop, by, 0.25).to_json()
    change(value)
    write_json(folder / "plan.json", value)
    return folder / "plan.json"


def message(folder: Path, path: Path) -> str:
    """The one line that tells what is wrong with a plan."""
    with pytest.raises(RunError) as caught:
        check_plan(read_plan(path), write_run(folder / "run"), path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("drop", ["tasks", "instances", None])
def test_a_plan_reads_back_as_it_was(tmp_path: Path, drop: Any) -> None:
    run = write_run(tmp_path / "run")
    plan = make_plan(run, drop, "harmful" if drop == "tasks" else "mislabeled", 0.25)
    write_json(tmp_path / "plan.json", plan.to_json())
    found = check_plan(read_plan(tmp_path / "plan.json"), run, tmp_path / "plan.json")
    assert found == plan
    assert len(found.items) == 2


def test_items_can_be_removed(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda plan: plan["items"].pop(0))
    plan = check_plan(read_plan(path), write_run(tmp_path / "run"), path)
    assert [item.task_id for item in plan.items] == ["task-1"]
    assert plan.counts.relabeled == 1


def test_a_relabelling_can_become_a_drop(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda plan: plan["items"][0].update(kind="drop", new_label=None))
    plan = check_plan(read_plan(path), write_run(tmp_path / "run"), path)
    assert (plan.counts.dropped, plan.counts.relabeled) == (1, 1)


def test_fields_that_have_a_default_can_be_left_out(tmp_path: Path) -> None:
    def bare(plan: dict[str, Any]) -> None:
        for field in ("note", "check", "kept"):
            del plan[field]
        for field in ("q_value", "reason"):
            del plan["items"][0][field]

    path = edited(tmp_path, bare)
    assert len(check_plan(read_plan(path), write_run(tmp_path / "run"), path).items) == 2


def first(**values: object) -> Change:
    """Changes the first item."""
    return lambda plan: plan["items"][0].update(values)


def again(plan: dict[str, Any]) -> None:
    plan["items"].append(plan["items"][0])


def most(fraction: float) -> Change:
    return lambda plan: plan.update(max_fraction=fraction)


BAD: dict[str, tuple[Change, str]] = {
    "task": (first(task_id="task-99"), "items[0].task_id: names 'task-99'"),
    "index": (first(index=4), "items[0].index: names 'support 4 of task task-0'"),
    "negative index": (first(index=-1), "items[0].index: names 'support -1"),
    "set is missing": (first(set=None), "items[0].set: is missing"),
    "index is missing": (first(index=None), "items[0].index: is missing"),
    "instance": (first(instance_id="x"), "items[0].instance_id: is 'x'; expected 'image-0-"),
    "label": (first(label=1), "items[0].label: is 1; expected 0"),
    "new label": (first(new_label=2), "items[0].new_label: names 'label 2 of task task-0'"),
    "negative label": (first(new_label=-1), "items[0].new_label: names 'label -1"),
    "same label": (first(new_label=0), "items[0].new_label: is the label that it has"),
    "no label": (first(new_label=None), "items[0].new_label: is missing"),
    "label of a drop": (first(kind="drop"), "items[0].new_label: is of what is dropped"),
    "twice": (again, "items[0]: is there twice"),
    "too many": (most(0.02), "items: are 2 of 64 instances; expected at most 1"),
    "data": (lambda plan: plan.update(tasks_sha256="e" * 64), "tasks_sha256: is of other tasks"),
    "guard": (lambda plan: plan.update(min_per_class=2), "class 0 of task 'task-0' would have 1"),
    "unknown kind": (first(kind="keep"), "items[0].kind: is 'keep'; expected 'drop' or 'relabel'"),
    "unknown set": (first(set="test"), "items[0].set: is 'test'; expected 'support' or 'query'"),
    "type": (first(new_label="1"), "items[0].new_label: is '1'; expected a valid integer"),
    "fraction": (most(1.5), "max_fraction: is 1.5; expected less than or equal to 1"),
    "misspelt": (first(newlabel=1), "items[0].newlabel: is no field of a plan"),
    "version": (lambda plan: plan.update(schema_version=1), "schema_version: is 1; expected 2"),
    "no items": (lambda plan: plan.pop("items"), "items: is missing"),
    "tasks": (lambda plan: plan.update(drop="tasks"), "items[0].kind: is relabel; expected drop"),
}


@pytest.mark.parametrize(("change", "part"), BAD.values(), ids=BAD)
def test_a_bad_plan_of_instances_is_refused(tmp_path: Path, change: Change, part: str) -> None:
    assert part in message(tmp_path, edited(tmp_path, change))


BAD_TASKS: dict[str, tuple[Change, str]] = {
    "task": (first(task_id="x\x1b[1m"), r"items[0].task_id: names 'x\x1b[1m', which the run"),
    "instance": (first(index=0), "items[0].index: is of an instance"),
    "label": (first(new_label=0), "items[0].new_label: is of an instance"),
    "instances": (lambda plan: plan.update(drop="instances"), "items[0].set: is missing"),
}


@pytest.mark.parametrize(("change", "part"), BAD_TASKS.values(), ids=BAD_TASKS)
def test_a_bad_plan_of_tasks_is_refused(tmp_path: Path, change: Change, part: str) -> None:
    assert part in message(tmp_path, edited(tmp_path, change, "tasks", "harmful"))


def test_all_tasks_cannot_go(tmp_path: Path) -> None:
    def all_of_them(plan: dict[str, Any]) -> None:
        plan["items"] = [plan["items"][0] | {"task_id": f"task-{row}"} for row in range(8)]
        plan["max_fraction"] = 1.0

    assert "items: are all 8 tasks" in message(
        tmp_path, edited(tmp_path, all_of_them, "tasks", "harmful")
    )


def test_one_of_those_that_repeat_each_other_has_to_stay(tmp_path: Path) -> None:
    run = repeating(tmp_path / "run")
    value = make_plan(run, "tasks", "duplicate", 1.0).to_json()
    value["items"].append(value["items"][0] | {"task_id": "task-1"})
    write_json(tmp_path / "plan.json", value)
    plan = read_plan(tmp_path / "plan.json")
    with pytest.raises(RunError, match="all that repeat task 'task-1'"):
        check_plan(plan, run, tmp_path / "plan.json")


def test_the_last_query_instance_has_to_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None, flag(instance_rows(task_rows()), "task-3", "query"))
    value = make_plan(run, "instances", "mislabel_score", 0.5).to_json()
    value["items"] += [item | {"reason": "mine"} for item in value["kept"]]
    assert len(value["items"]) == 4
    write_json(tmp_path / "plan.json", value)
    with pytest.raises(RunError, match="task 'task-3' would have no query instance left"):
        check_plan(read_plan(tmp_path / "plan.json"), run, tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
        ("\xff", "is no JSON"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError) as caught:
        read_plan(path)
    assert str(path) in str(caught.value)
    assert part in str(caught.value)


@pytest.mark.parametrize("name", ["none.json", "."])
def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        read_plan(tmp_path / name)


def test_infinite_scores_are_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda plan: None)
    text = json.loads(path.read_text())
    text["items"][0]["score"] = float("inf")
    path.write_text(json.dumps(text))
    assert "items[0].score" in message(tmp_path, path)
