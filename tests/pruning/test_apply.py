from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from metaaudit.errors import RunError
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.pruning import apply_plan, make_plan
from metaaudit.runs.saved import SavedRun
from tests.run_folder import instance_rows, task_rows, write_run


def scored_tasks(run: SavedRun) -> TaskSet:
    """The task set that the run folder of the tests pretends to have scored."""
    ids = tuple(row.instance_id for row in run.instances)
    tasks = []
    for task in run.tasks:
        rows: dict[str, list[int]] = {"support": [], "query": []}
        for name, found in rows.items():
            places = [
                (row.index, pool_row)
                for pool_row, row in enumerate(run.instances)
                if row.task_id == task.task_id and row.set == name
            ]
            found += [pool_row for _, pool_row in sorted(places)]
        labels = {
            name: np.array([run.instances[row].label for row in found])
            for name, found in rows.items()
        }
        tasks.append(
            Task(
                task.task_id,
                np.array(rows["support"]),
                labels["support"],
                np.array(rows["query"]),
                labels["query"],
                ("zero", "one"),
            )
        )
    return TaskSet(ImagePool(np.zeros((len(ids), 1, 2, 2), dtype=np.uint8), ids), tuple(tasks))


def test_tasks_are_dropped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    tasks = scored_tasks(run)
    pruned = apply_plan(make_plan(run, "tasks", "influence", 1.0), tasks)
    assert pruned.task_ids == [f"task-{row}" for row in range(2, 8)]
    assert len(tasks) == 8
    assert pruned.tasks[0] is tasks.tasks[2]


def test_instances_are_dropped_and_the_rest_is_untouched(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    tasks = scored_tasks(run)
    pruned = apply_plan(make_plan(run, "instances", "mislabel_score", 1.0), tasks)
    assert [task.shape for task in pruned.tasks] == [(3, 4), (3, 4)] + [(4, 4)] * 6
    for before, after in zip(tasks.tasks[:2], pruned.tasks[:2], strict=True):
        np.testing.assert_array_equal(after.support, before.support[1:])
        np.testing.assert_array_equal(after.support_y, before.support_y[1:])
        np.testing.assert_array_equal(after.query, before.query)
        assert after.class_names == before.class_names
    for before, after in zip(tasks.tasks[2:], pruned.tasks[2:], strict=True):
        np.testing.assert_array_equal(after.support, before.support)


def test_even_the_greediest_plan_leaves_tasks_that_can_be_adapted_to(tmp_path: Path) -> None:
    rows = [dataclasses.replace(row, mislabeled=True) for row in instance_rows(task_rows())]
    run = write_run(tmp_path / "run", None, rows)
    pruned = apply_plan(make_plan(run, "instances", "mislabel_score", 1.0), scored_tasks(run))
    for task in pruned.tasks:
        assert sorted(task.support_y) == [0, 1]
        assert len(task.query) == 1


def test_labels_are_changed_and_the_rest_is_untouched(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    tasks = scored_tasks(run)
    before = [task.support_y.tolist() for task in tasks.tasks]
    changed = apply_plan(make_plan(run, None, "mislabeled", 1.0), tasks)
    assert [task.support_y.tolist() for task in changed.tasks] == [
        *[[1, *labels[1:]] for labels in before[:2]],
        *before[2:],
    ]
    assert [task.support_y.tolist() for task in tasks.tasks] == before
    for old, new in zip(tasks.tasks, changed.tasks, strict=True):
        np.testing.assert_array_equal(new.support, old.support)
        np.testing.assert_array_equal(new.query_y, old.query_y)


def test_one_plan_can_drop_and_relabel_in_one_task(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    tasks = scored_tasks(run)
    plan = make_plan(run, None, "mislabeled", 0.02)
    (item,) = plan.items
    moved = item.model_copy(update={"index": 2, "instance_id": "image-0-support-2"})
    plan = plan.model_copy(
        update={"items": (item.model_copy(update={"kind": "drop", "new_label": None}), moved)}
    )
    changed = apply_plan(plan, tasks).tasks[0]
    np.testing.assert_array_equal(changed.support, tasks.tasks[0].support[1:])
    assert changed.support_y.tolist() == [1, 1, 1]


def test_an_empty_plan_changes_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    tasks = scored_tasks(run)
    pruned = apply_plan(make_plan(run, "instances", "influence", 1.0), tasks)
    assert pruned.content_hash == tasks.content_hash


def test_a_plan_of_other_tasks_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    tasks = scored_tasks(run)
    by_task = make_plan(run, "tasks", "influence", 1.0)
    by_instance = make_plan(run, "instances", "mislabel_score", 1.0)
    with pytest.raises(RunError, match="'task-0', which is not in the task set"):
        apply_plan(by_task, tasks.select([1, 2, 3]))
    other_ids = dataclasses.replace(tasks.pool, ids=tuple(reversed(tasks.pool.ids)))
    with pytest.raises(RunError, match="where the task set has"):
        apply_plan(by_instance, TaskSet(other_ids, tasks.tasks))
    empty = dataclasses.replace(
        tasks.tasks[0], support=tasks.tasks[0].support[:0], support_y=np.zeros(0, dtype=np.int64)
    )
    with pytest.raises(RunError, match="which has none"):
        apply_plan(by_instance, TaskSet(tasks.pool, (empty, *tasks.tasks[1:])))
