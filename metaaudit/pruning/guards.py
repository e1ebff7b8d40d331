"""What a change may never leave behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from metaaudit.runs.tables import InstanceRow

_Group = tuple[str, str, int | None]


class InstanceGuard:
    """Keeps so many support instances of every class, and a query instance, in every task.

    Of a labelled data set, whose tasks have no support, it keeps so many instances of every class.

    Args:
        instances: All occurrences.
        min_per_class: How many. A class that has no more to begin with loses none.
    """

    def __init__(self, instances: Sequence[InstanceRow], min_per_class: int) -> None:
        self._least = min_per_class
        self._labelled = not any(row.set == "support" for row in instances)
        self._left = Counter(self._group(row, row.label) for row in instances)
        self._before = Counter(self._left)

    def knows(self, task_id: str, label: int) -> bool:
        """Whether a label is of a class that a task's support had to begin with."""
        group = ("", "query", label) if self._labelled else (task_id, "support", label)
        return self._before[group] > 0

    def objection(self, row: InstanceRow, new_label: int | None = None) -> str:
        """Why an instance must stay as it is; empty if it may go or get the new label."""
        whose = "the data" if self._labelled else "its task"
        what = "instance" if self._labelled else "support instance"
        if new_label is not None and not self.knows(row.task_id, new_label):
            return f"no {what} of {whose} has label {new_label}"
        left = self._left[self._group(row, row.label)]
        if row.set == "query" and not self._labelled:
            return "" if new_label is not None or left > 1 else "last query instance of its task"
        if left > self._least:
            return ""
        if self._least == 1:
            return f"last {what} of class {row.label} of {whose}"
        return f"class {row.label} of {whose} needs {self._least} {what}s"

    def change(self, row: InstanceRow, new_label: int | None = None) -> None:
        """Counts the instance as dropped, or as one of another class."""
        self._left[self._group(row, row.label)] -= 1
        if new_label is not None:
            self._left[self._group(row, new_label)] += 1

    def violation(self) -> str:
        """What all changes together leave too little of; empty if nothing."""
        for group, before in self._before.items():
            task_id, _, label = group
            left = self._left[group]
            if label is None:
                if not left:
                    return f"task {task_id!r} would have no query instance left"
            elif left < min(before, self._least):
                whose, what = f" of task {task_id!r}", "support instances"
                if self._labelled:
                    whose, what = "", "instances"
                return f"class {label}{whose} would have {left} {what} left"
        return ""

    def _group(self, row: InstanceRow, label: int) -> _Group:
        if self._labelled:
            return "", row.set, label
        # A task can be adapted to with any query set, but not without one of its classes.
        return row.task_id, row.set, label if row.set == "support" else None
