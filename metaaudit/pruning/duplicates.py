"""Which tasks repeat which."""

from __future__ import annotations

from collections import defaultdict

from metaaudit.runs.saved import SavedRun


def duplicate_groups(run: SavedRun) -> list[tuple[str, ...]]:
    """Ids of the tasks flagged as duplicates that have the same images, in order, by group."""
    content = {item.instance_id: item.content for item in run.items}
    flagged = {row.task_id for row in run.tasks if "duplicate" in row.kinds.split()}
    images: dict[str, list[str]] = defaultdict(list)
    for row in run.instances:
        if row.task_id in flagged:
            images[row.task_id].append(content.get(row.instance_id, row.instance_id))
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for task_id in sorted(images):
        groups[tuple(sorted(images[task_id]))].append(task_id)
    return [tuple(group) for group in groups.values() if len(group) > 1]
