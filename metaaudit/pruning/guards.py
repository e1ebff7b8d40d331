"""What dropping may never leave behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from metaaudit.runs.tables import InstanceRow


class InstanceGuard:
    """Keeps a support instance of every class and a query instance in every task."""

    def __init__(self, instances: Iterable[InstanceRow]) -> None:
        self._left = Counter(_group(row) for row in instances)

    def objection(self, row: InstanceRow) -> str:
        """Why the instance must stay; empty if it may go."""
        if self._left[_group(row)] > 1:
            return ""
        if row.set == "support":
            return f"last support instance of class {row.label} of its task"
        return "last query instance of its task"

    def drop(self, row: InstanceRow) -> None:
        """Counts the instance as dropped."""
        self._left[_group(row)] -= 1


def _group(row: InstanceRow) -> tuple[str, str, int | None]:
    # A task can be adapted to with any query set, but not without one of its classes.
    return row.task_id, row.set, row.label if row.set == "support" else None
