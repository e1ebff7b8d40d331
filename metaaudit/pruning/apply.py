"""A task set without what a plan drops and with the labels that it changes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from metaaudit.errors import RunError
from metaaudit.inputs.task_set import Ints, SetName, Task, TaskSet
from metaaudit.pruning.plan import PruneItem, PrunePlan


def apply_plan(plan: PrunePlan, task_set: TaskSet) -> TaskSet:
    """Returns a new task set over the same images, changed as the plan says.

    Tasks keep their order; those that lose instances become smaller.

    Raises:
        RunError: The task set does not hold what the plan changes, so it is not the one scored.
    """
    by_task: dict[str, list[PruneItem]] = defaultdict(list)
    for item in plan.items:
        by_task[item.task_id].append(item)
    unknown = sorted(by_task.keys() - set(task_set.task_ids))
    if unknown:
        raise _other_tasks(plan, f"names task {unknown[0]!r}, which is not in the task set")
    if plan.subject == "tasks":
        return TaskSet(
            task_set.pool, tuple(task for task in task_set.tasks if task.task_id not in by_task)
        )
    for task in task_set.tasks:
        _check(plan, task_set, task, by_task[task.task_id])
    return TaskSet(
        task_set.pool, tuple(_changed(task, by_task[task.task_id]) for task in task_set.tasks)
    )


def _changed(task: Task, items: list[PruneItem]) -> Task:
    def left(name: SetName) -> npt.NDArray[np.bool_]:
        dropped = {item.index for item in items if item.set == name and item.kind == "drop"}
        return np.array([index not in dropped for index in range(len(task.rows(name)))], dtype=bool)

    def labels(name: SetName) -> Ints:
        found = task.labels(name).copy()
        for item in items:
            if item.set == name and item.index is not None and item.new_label is not None:
                found[item.index] = item.new_label
        return found

    support, query = left("support"), left("query")
    return replace(
        task,
        support=task.support[support],
        support_y=labels("support")[support],
        query=task.query[query],
        query_y=labels("query")[query],
    )


def _check(plan: PrunePlan, task_set: TaskSet, task: Task, items: list[PruneItem]) -> None:
    for item in items:
        rows = task.support if item.set == "support" else task.query
        if item.index is None or not 0 <= item.index < len(rows):
            raise _other_tasks(
                plan, f"names {item.set} {item.index} of task {task.task_id!r}, which has none"
            )
        found = task_set.pool.ids[rows[item.index]]
        if found != item.instance_id:
            raise _other_tasks(
                plan,
                f"names {item.instance_id!r} at {item.set} {item.index} of task "
                f"{task.task_id!r}, where the task set has {found!r}",
            )


def _other_tasks(plan: PrunePlan, what: str) -> RunError:
    return RunError(f"plan of run {plan.run!r}", what, "the tasks that were scored", "score again")
