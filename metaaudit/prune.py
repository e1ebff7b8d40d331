"""``metaaudit prune``: a plan from a saved run and, if asked for, a pruned copy of its tasks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from metaaudit.config import Config
from metaaudit.errors import RunError
from metaaudit.inputs.arrays import check_suffix
from metaaudit.inputs.episodes import write_episodes
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks
from metaaudit.pruning import PrunePlan, apply_plan, make_plan
from metaaudit.pruning.plan import NOTE, By, Drop
from metaaudit.runs.atomic import resolved, write_json
from metaaudit.runs.saved import SavedRun, check_output

SHOWN = 20


def run_prune(
    run: Path, drop: Drop, by: By, max_fraction: float, plan_file: Path, out: Path | None
) -> list[str]:
    """Makes and writes the plan and, if ``out`` is given, the pruned tasks.

    Args:
        run: A finished run.
        drop: ``tasks`` or ``instances``.
        by: The score that decides.
        max_fraction: Largest share to drop.
        plan_file: Where the plan is written.
        out: New file of episodes, or ``None`` for the plan alone.

    Returns:
        Lines that tell what goes and why.

    Raises:
        MetaauditError: The run or its data cannot be used, or a guard stopped the plan.
    """
    _check_targets(run, plan_file, out)
    saved = SavedRun.open(run)
    plan = make_plan(saved, drop, by, max_fraction)
    lines = _describe(plan)
    # The plan comes first: data without the reasons for what it lacks would be of little use.
    if out is None:
        write_json(plan_file, plan.to_json())
    else:
        pruned = apply_plan(plan, _scored_tasks(saved))
        write_json(plan_file, plan.to_json())
        write_episodes(out, pruned)
        lines.append(f"wrote {len(pruned)} tasks, {pruned.n_instances} instances: {out}")
    return [*lines, f"plan: {plan_file}"]


def _check_targets(run: Path, plan_file: Path, out: Path | None) -> None:
    check_output(run, plan_file)
    if plan_file.is_dir():
        raise RunError(plan_file, "is a folder", "a file for the plan", "name a file in it")
    if out is None:
        return
    if out.exists():
        raise RunError(out, "exists already", "a new file", "name another")
    if resolved(out) == resolved(plan_file):
        raise RunError(out, "is the file of the plan too", "two files", "name another")
    check_suffix(out)


def _scored_tasks(saved: SavedRun) -> TaskSet:
    """The training tasks of a run, if they still are what was scored."""
    try:
        config = Config.model_validate_json(json.dumps(saved.manifest["config"]))
    except ValueError as error:
        raise RunError(
            saved.path / "manifest.json",
            f"holds a configuration that cannot be used ({error})",
            remedy="score again into a new folder",
        ) from None
    train, _ = load_tasks(config.tasks)
    if train.content_hash != saved.manifest["data"]["train"]["sha256"]:
        raise RunError(
            saved.path,
            "its training tasks have changed on disk since they were scored",
            "the same data",
            "score again",
        )
    return train


def _describe(plan: PrunePlan) -> list[str]:
    share = len(plan.items) / plan.total
    lines = [f"drop {len(plan.items)} of {plan.total} {plan.drop} ({share:.1%}) by {plan.by}"]
    for item in plan.items[:SHOWN]:
        place = "" if item.set is None else f" {item.set}[{item.index}] {item.instance_id}"
        lines.append(f"  {item.task_id}{place}: {item.reason}")
    if len(plan.items) > SHOWN:
        lines.append(f"  and {len(plan.items) - SHOWN} more in the plan")
    if plan.left_out:
        lines.append(f"{plan.left_out} more would go without --max-fraction {plan.max_fraction}")
    for reason, count in Counter(item.reason for item in plan.kept).items():
        lines.append(f"kept {count}: {reason}")
    return [*lines, f"note: {NOTE}"]
