"""A plan in lines, for a terminal."""

from __future__ import annotations

from collections import Counter

from metaaudit.pruning.plan import PruneItem, PrunePlan

SHOWN = 20


def describe(plan: PrunePlan) -> list[str]:
    """What changes and why, the worst first."""
    counts = plan.counts
    done = [
        f"{verb} {count}"
        for verb, count in (("drop", counts.dropped), ("relabel", counts.relabeled))
        if count or verb == ("drop" if plan.drop else "relabel")
    ]
    share = len(plan.items) / counts.total
    lines = [
        f"{' and '.join(done)} of {counts.total} {plan.subject} ({share:.1%}) by {plan.by}",
        *(f"  {_line(item)}" for item in plan.items[:SHOWN]),
    ]
    if len(plan.items) > SHOWN:
        lines.append(f"  and {len(plan.items) - SHOWN} more in the plan")
    if counts.left_out_by_max_fraction:
        lines.append(
            f"{counts.left_out_by_max_fraction} more would change without --max-fraction "
            f"{plan.max_fraction}"
        )
    for reason, count in Counter(item.reason for item in plan.kept).items():
        lines.append(f"kept {count}: {reason}")
    return [*lines, f"note: {plan.note}"]


def _line(item: PruneItem) -> str:
    place = "" if item.set is None else f" {item.set}[{item.index}] {item.instance_id}"
    change = f" {item.label} -> {item.new_label}" if item.kind == "relabel" else ""
    chance = "" if item.q_value is None else f", q {item.q_value:.2g}"
    return f"{item.task_id}{place}{change}: {item.reason}{chance}"
