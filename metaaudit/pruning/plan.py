"""The plan of what goes and why; it changes nothing on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from metaaudit.errors import RunError
from metaaudit.pruning.candidates import (
    Candidate,
    harmful_instances,
    harmful_tasks,
    mislabeled_instances,
    noisy_tasks,
)
from metaaudit.pruning.guards import InstanceGuard
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow

SCHEMA_VERSION = 1
NOTE = "noisy is not always harmful: compare a retrained model before you keep the pruned set"

Drop = Literal["tasks", "instances"]
By = Literal["influence", "label_noise", "mislabel_score"]

_CANDIDATES = {
    ("tasks", "influence"): harmful_tasks,
    ("tasks", "label_noise"): noisy_tasks,
    ("instances", "mislabel_score"): mislabeled_instances,
    ("instances", "influence"): harmful_instances,
}


@dataclass(frozen=True)
class PruneItem:
    """A task or an instance, and why it goes or stays.

    Attributes:
        task_id: The task, or the task that the instance is in.
        set: ``support`` or ``query``; ``None`` for a task, as are the next two.
        index: Position within the set.
        instance_id: The image's id.
        score: The score that ranked it.
        reason: In words.
    """

    task_id: str
    set: str | None
    index: int | None
    instance_id: str | None
    score: float
    reason: str


@dataclass(frozen=True)
class PrunePlan:
    """What to drop from the training tasks of a run.

    Attributes:
        run: Name of the run's folder.
        drop: Whether tasks or instances go.
        by: The score that decides.
        max_fraction: At most this share of all tasks or instances goes.
        total: Number of all tasks or instances.
        candidates: Number that the score gives reason to drop.
        left_out: Candidates that stay because of ``max_fraction``.
        items: What goes, worst first.
        kept: Candidates that a guard keeps, with its reason.
    """

    run: str
    drop: Drop
    by: By
    max_fraction: float
    total: int
    candidates: int
    left_out: int
    items: tuple[PruneItem, ...]
    kept: tuple[PruneItem, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values, for ``metaaudit.runs.atomic.write_json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self.run,
            "drop": self.drop,
            "by": self.by,
            "max_fraction": self.max_fraction,
            "counts": {
                "total": self.total,
                "candidates": self.candidates,
                "dropped": len(self.items),
                "kept_by_guard": len(self.kept),
                "left_out_by_max_fraction": self.left_out,
            },
            "note": NOTE,
            "items": [asdict(item) for item in self.items],
            "kept": [asdict(item) for item in self.kept],
        }


def make_plan(run: SavedRun, drop: Drop, by: By, max_fraction: float) -> PrunePlan:
    """Plans what to drop, worst first, and never more than ``floor(max_fraction * total)``.

    Only what a score gives a reason for is a candidate: tasks flagged harmful (``influence``) or
    with wrong labels (``label_noise``), instances flagged mislabeled (``mislabel_score``) or with
    an outlying ``influence``. Instances that a task cannot do without are kept.

    Raises:
        RunError: The score does not rank what is to be dropped, ``max_fraction`` is not in
            (0, 1], or no task would be left.
    """
    find = _CANDIDATES.get((drop, by))
    if find is None:
        valid = [f"--drop {what} --by {score}" for what, score in _CANDIDATES]
        raise RunError(f"--drop {drop} --by {by}", "cannot be combined", f"{' or '.join(valid)}")
    if not 0 < max_fraction <= 1:
        raise RunError("--max-fraction", f"is {max_fraction}", "a number above 0 and at most 1")
    total = len(run.tasks if drop == "tasks" else run.instances)
    candidates = find(run)
    # The decimal that was typed, not its binary neighbour: 0.29 of 100 is 29.
    most = math.floor(Fraction(str(max_fraction)) * total)
    items, kept, left_out = _choose(candidates, most, InstanceGuard(run.instances))
    if drop == "tasks" and len(items) == total:
        raise RunError(
            "guard", f"all {total} tasks would go", "one task left", "lower --max-fraction"
        )
    return PrunePlan(
        run=run.path.resolve().name,
        drop=drop,
        by=by,
        max_fraction=max_fraction,
        total=total,
        candidates=len(candidates),
        left_out=left_out,
        items=tuple(items),
        kept=tuple(kept),
    )


def _choose(
    candidates: Sequence[Candidate], most: int, guard: InstanceGuard
) -> tuple[list[PruneItem], list[PruneItem], int]:
    items: list[PruneItem] = []
    kept: list[PruneItem] = []
    for position, candidate in enumerate(candidates):
        if len(items) == most:
            return items, kept, len(candidates) - position
        row = candidate.row
        objection = guard.objection(row) if isinstance(row, InstanceRow) else ""
        if objection:
            kept.append(_item(candidate, f"kept: {objection}"))
            continue
        if isinstance(row, InstanceRow):
            guard.drop(row)
        items.append(_item(candidate, candidate.reason))
    return items, kept, 0


def _item(candidate: Candidate, reason: str) -> PruneItem:
    row = candidate.row
    if isinstance(row, InstanceRow):
        place = (row.task_id, row.set, row.index, row.instance_id)
        return PruneItem(*place, candidate.score, reason)
    return PruneItem(row.task_id, None, None, None, candidate.score, reason)
