"""A plan from its file, which a person may have edited, and whether it fits a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pydantic import ValidationError

from metaaudit.errors import RunError
from metaaudit.pruning.duplicates import duplicate_groups
from metaaudit.pruning.guards import InstanceGuard
from metaaudit.pruning.plan import PruneItem, PrunePlan, most_items
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow

_MOST_SHOWN = 60


def read_plan(path: Path) -> PrunePlan:
    """Reads a plan file.

    Raises:
        RunError: It cannot be read or is no plan; the message names the field at fault.
    """
    try:
        return PrunePlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RunError(path, f"cannot be read ({error.strerror})", "a plan of `prune`") from None
    except ValidationError as error:
        raise _bad_field(path, error) from None


def check_plan(plan: PrunePlan, run: SavedRun, path: Path) -> PrunePlan:
    """Checks a plan against the run that it is applied to.

    Args:
        plan: The plan.
        run: The run.
        path: The plan's file, for messages.

    Returns:
        The plan with its counts as its items have them now.

    Raises:
        RunError: It is of other tasks, names what the run does not have, or breaks a guard.
    """
    if plan.tasks_sha256 != run.manifest["data"]["train"]["sha256"]:
        raise RunError(
            f"{path}: tasks_sha256", "is of other tasks than the run's", "a plan of this run"
        )
    _check_repeats(plan, path)
    if plan.subject == "tasks":
        total = _check_tasks(plan, run, path)
    else:
        total = _check_instances(plan, run, path)
    most = most_items(plan.max_fraction, total)
    if len(plan.items) > most:
        raise RunError(
            f"{path}: items",
            f"are {len(plan.items)} of {total} {plan.subject}",
            f"at most {most}, by max_fraction {plan.max_fraction}",
            "remove some, or raise max_fraction in the plan",
        )
    relabeled = sum(item.kind == "relabel" for item in plan.items)
    counts = {"total": total, "dropped": len(plan.items) - relabeled, "relabeled": relabeled}
    return plan.model_copy(update={"counts": plan.counts.model_copy(update=counts)})


def _check_repeats(plan: PrunePlan, path: Path) -> None:
    seen = Counter(item.place for item in plan.items)
    for number, item in enumerate(plan.items):
        if seen[item.place] > 1:
            raise RunError(f"{path}: items[{number}]", "is there twice", "each place once")


def _check_tasks(plan: PrunePlan, run: SavedRun, path: Path) -> int:
    """Checks a plan of tasks; returns how many tasks there are."""
    known = {row.task_id for row in run.tasks}
    for number, item in enumerate(plan.items):
        where = f"{path}: items[{number}]"
        if item.kind != "drop":
            raise RunError(f"{where}.kind", f"is {item.kind}", "drop, in a plan of tasks")
        for field in ("set", "index", "instance_id", "label", "new_label"):
            if getattr(item, field) is not None:
                raise RunError(f"{where}.{field}", "is of an instance", "null in a plan of tasks")
        if item.task_id not in known:
            raise _unknown(where, "task_id", item.task_id)
    dropped = {item.task_id for item in plan.items}
    if dropped == known:
        raise RunError(f"{path}: items", f"are all {len(known)} tasks", "one task left")
    for group in duplicate_groups(run) if plan.by == "duplicate" else ():
        if dropped.issuperset(group):
            raise RunError(
                f"{path}: items", f"are all that repeat task {group[0]!r}", "one of them left"
            )
    return len(known)


def _check_instances(plan: PrunePlan, run: SavedRun, path: Path) -> int:
    """Checks a plan of instances; returns how many occurrences there are."""
    rows = {(row.task_id, row.set, row.index): row for row in run.instances}
    tasks = {row.task_id for row in run.tasks}
    guard = InstanceGuard(run.instances, plan.min_per_class)
    for number, item in enumerate(plan.items):
        where = f"{path}: items[{number}]"
        if item.task_id not in tasks:
            raise _unknown(where, "task_id", item.task_id)
        if item.set is None or item.index is None:
            missing = "set" if item.set is None else "index"
            raise RunError(f"{where}.{missing}", "is missing", "a place, in a plan of instances")
        row = rows.get((item.task_id, item.set, item.index))
        if row is None:
            raise _unknown(where, "index", f"{item.set} {item.index} of task {item.task_id}")
        _check_item(where, item, row, guard)
        guard.change(row, item.new_label)
    if objection := guard.violation():
        raise RunError(f"{path}: items", objection, "what min_per_class asks for", "remove some")
    return len(rows)


def _check_item(where: str, item: PruneItem, row: InstanceRow, guard: InstanceGuard) -> None:
    for field in ("instance_id", "label"):
        found, given = getattr(row, field), getattr(item, field)
        if given != found:
            raise RunError(f"{where}.{field}", f"is {given!r}", f"{found!r}, as in the run")
    if item.kind == "drop":
        if item.new_label is not None:
            raise RunError(f"{where}.new_label", "is of what is dropped", "null, or kind relabel")
        return
    if item.new_label is None or item.new_label == item.label:
        what = "is missing" if item.new_label is None else "is the label that it has"
        raise RunError(f"{where}.new_label", what, "another label")
    if not guard.knows(item.task_id, item.new_label):
        raise _unknown(where, "new_label", f"label {item.new_label} of task {item.task_id}")


def _unknown(where: str, field: str, value: str) -> RunError:
    return RunError(f"{where}.{field}", f"names {value!r}, which the run lacks", "one of the run's")


def _bad_field(path: Path, error: ValidationError) -> RunError:
    """The first field at fault, a misspelt one first: it is what makes another one look missing."""
    found = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first, more = found[0], len(found) - 1
    loc = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    where = f"{path}: {loc.lstrip('.')}" if loc else str(path)
    remedy = f"(and {more} more)" if more else ""
    if first["type"] == "json_invalid":
        return RunError(path, f"is no JSON ({first['ctx']['error']})", "a plan of `prune`")
    if first["type"] == "missing":
        return RunError(where, "is missing", "all fields of a plan", remedy)
    if first["type"] == "extra_forbidden":
        return RunError(where, "is no field of a plan", "a plan of `prune`", remedy)
    text = repr(first["input"])
    shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
    wanted = first["msg"].removeprefix("Input should be ")
    return RunError(where, f"is {shown}", wanted, remedy)
