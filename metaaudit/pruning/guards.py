"""What a change may never leave behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from metaaudit.runs.tables import InstanceRow

_Group = tuple[str, str, int | None]


class InstanceGuard:
    """Keeps so many support instances of every class, and a query instance, in every task.

    Args:
        instances: All occurrences.
        min_per_class: How many. A class that has no more to begin with loses none.
    """

    def __init__(self, instances: Iterable[InstanceRow], min_per_class: int) -> None:
        self._least = min_per_class
        self._left = Counter(_group(row, row.label) for row in instances)
        self._before = Counter(self._left)

    def knows(self, task_id: str, label: int) -> bool:
        """Whether a label is of a class that a task's support had to begin with."""
        return self._before[task_id, "support", label] > 0

    def objection(self, row: InstanceRow, new_label: int | None = None) -> str:
        """Why an instance must stay as it is; empty if it may go or get the new label."""
        if new_label is not None and not self.knows(row.task_id, new_label):
            return f"no support instance of its task has label {new_label}"
        if row.set == "query":
            if new_label is not None or self._left[_group(row, row.label)] > 1:
                return ""
            return "last query instance of its task"
        if self._left[_group(row, row.label)] > self._least:
            return ""
        if self._least == 1:
            return f"last support instance of class {row.label} of its task"
        return f"class {row.label} of its task needs {self._least} support instances"

    def change(self, row: InstanceRow, new_label: int | None = None) -> None:
        """Counts the instance as dropped, or as one of another class."""
        self._left[_group(row, row.label)] -= 1
        if new_label is not None:
            self._left[_group(row, new_label)] += 1

    def violation(self) -> str:
        """What all changes together leave too little of; empty if nothing."""
        for group, before in self._before.items():
            task_id, name, label = group
            left = self._left[group]
            if name == "query" and not left:
                return f"task {task_id!r} would have no query instance left"
            if name == "support" and left < min(before, self._least):
                return f"class {label} of task {task_id!r} would have {left} support instances left"
        return ""


def _group(row: InstanceRow, label: int) -> _Group:
    # A task can be adapted to with any query set, but not without one of its classes.
    return row.task_id, row.set, label if row.set == "support" else None
