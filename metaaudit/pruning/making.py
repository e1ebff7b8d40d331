"""A plan from the scores and flags of a run."""

from __future__ import annotations

from collections.abc import Sequence

from metaaudit.errors import RunError
from metaaudit.pruning.candidates import CANDIDATES, Candidate
from metaaudit.pruning.follow_up import check_commands
from metaaudit.pruning.guards import InstanceGuard
from metaaudit.pruning.plan import By, PruneItem, PrunePlan, Subject, counts_of, most_items
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow


def make_plan(
    run: SavedRun, drop: Subject | None, by: By, max_fraction: float, min_per_class: int = 1
) -> PrunePlan:
    """Plans what to change, worst first, and never more than ``floor(max_fraction * total)``.

    Only what a score or rule gives a reason for is a candidate. Instances that a task cannot do
    without are kept as they are.

    Args:
        run: The run.
        drop: What goes; ``None``: flagged labels are changed to the suggested ones instead.
        by: The score or rule that decides.
        max_fraction: Largest share of all tasks or instances.
        min_per_class: So many support instances of every class stay in each task, or so many
            instances of every class in a labelled data set.

    Raises:
        RunError: ``by`` does not rank what is to be changed, a number is out of its range, no task
            would be left, or the guards keep every candidate.
    """
    find = CANDIDATES.get((drop, by))
    if find is None:
        raise _not_combined(drop, by)
    if min_per_class < 1:
        raise RunError("--min-per-class", f"is {min_per_class}", "a whole number of at least 1")
    total = len(run.tasks if drop == "tasks" else run.instances)
    most = most_items(max_fraction, total)
    candidates = find(run)
    guard = InstanceGuard(run.instances, min_per_class)
    items, kept, left_out = _choose(candidates, most, guard)
    if drop == "tasks" and len(items) == total:
        raise RunError(
            "guard", f"all {total} tasks would go", "one task left", "lower --max-fraction"
        )
    if kept and not items and not left_out:
        raise RunError(
            "guard",
            f"keeps all {len(kept)} candidates ({kept[0].reason})",
            "one that can be changed",
            "lower --min-per-class" if min_per_class > 1 else "",
        )
    return PrunePlan(
        run=run.path.resolve().name,
        tasks_sha256=run.manifest["data"]["train"]["sha256"],
        drop=drop,
        by=by,
        max_fraction=max_fraction,
        min_per_class=min_per_class,
        counts=counts_of(
            items, total=total, candidates=len(candidates), kept=len(kept), left_out=left_out
        ),
        check=check_commands(run),
        items=tuple(items),
        kept=tuple(kept),
    )


def _not_combined(drop: Subject | None, by: By) -> RunError:
    if drop is None:
        return RunError(f"--relabel --by {by}", "cannot be combined", "--relabel alone")
    valid = {what: [by for one, by in CANDIDATES if one == what] for what in ("tasks", "instances")}
    ways = " or ".join(f"--drop {what} --by {'|'.join(names)}" for what, names in valid.items())
    return RunError(f"--drop {drop} --by {by}", "cannot be combined", ways)


def _choose(
    candidates: Sequence[Candidate], most: int, guard: InstanceGuard
) -> tuple[list[PruneItem], list[PruneItem], int]:
    items: list[PruneItem] = []
    kept: list[PruneItem] = []
    for position, candidate in enumerate(candidates):
        if len(items) == most:
            return items, kept, len(candidates) - position
        row = candidate.row
        if isinstance(row, InstanceRow):
            objection = guard.objection(row, candidate.new_label)
            if objection:
                kept.append(candidate.item(f"kept: {objection}"))
                continue
            guard.change(row, candidate.new_label)
        items.append(candidate.item())
    return items, kept, 0
