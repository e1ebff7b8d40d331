"""How many of the planted errors the top of each ranking holds."""

from __future__ import annotations

from metaaudit.runs.saved import SavedRun
from metaaudit.training import Planted


def found(run: SavedRun, planted: Planted) -> list[str]:
    """Counts planted errors at the top of the rankings, beside what chance would give.

    Args:
        run: The audit of the tasks with planted errors.
        planted: Where the errors are.
    """
    places = planted.clean.instances()
    wrong = {
        (planted.clean.tasks[row].task_id, name, index)
        for is_wrong, (row, name, index) in zip(planted.wrong, places, strict=True)
        if is_wrong
    }
    permuted = {planted.clean.tasks[row].task_id for row in planted.permuted}
    top = [(row.task_id, row.set, row.index) for row in run.instances[: len(wrong)]]
    flagged = [(row.task_id, row.set, row.index) for row in run.instances if row.mislabeled]
    contradictory = {row.task_id for row in run.tasks if "contradictory" in row.kinds}
    by_influence = {row.task_id for row in run.tasks[: len(permuted)]}
    n_wrong, n_permuted = len(wrong), len(permuted)
    n_instances, n_tasks = len(run.instances), len(run.tasks)
    return [
        f"planted wrong labels among the {n_wrong} most suspicious instances: "
        f"{len(wrong.intersection(top))} of {n_wrong} (chance: {n_wrong**2 / n_instances:.0f})",
        f"planted wrong labels among the {len(flagged)} flagged instances: "
        f"{len(wrong.intersection(flagged))}",
        f"permuted tasks among the {len(contradictory)} flagged as contradictory: "
        f"{len(permuted & contradictory)} of {n_permuted}",
        f"permuted tasks among the {n_permuted} most harmful by influence: "
        f"{len(permuted & by_influence)} of {n_permuted} (chance: {n_permuted**2 / n_tasks:.1f}; "
        "what hurts and what is mislabeled are different questions)",
    ]
