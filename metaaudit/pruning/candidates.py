"""What a score or a rule gives reason to change, worst first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from metaaudit.pruning.duplicates import duplicate_groups
from metaaudit.pruning.plan import PruneItem
from metaaudit.robust import robust_z
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow

OUTLIER_Z = 4.0
"""Robust standard deviations above the median at which an instance's influence is an outlier."""


@dataclass(frozen=True)
class Candidate:
    """A task or an occurrence that may be changed.

    Attributes:
        row: It.
        score: What ranks it.
        q_value: Of the rule that flags it, where one with chance does.
        reason: In words.
        new_label: The label that it is to get; none where it is to go.
    """

    row: TaskRow | InstanceRow
    score: float
    q_value: float | None
    reason: str
    new_label: int | None = None

    def item(self, reason: str = "") -> PruneItem:
        """The item of a plan; another reason than the candidate's where one is given."""
        row, reason = self.row, reason or self.reason
        common = {"task_id": row.task_id, "score": self.score, "q_value": self.q_value}
        if isinstance(row, TaskRow):
            return PruneItem.model_validate({"kind": "drop", **common, "reason": reason})
        place = {"set": row.set, "index": row.index, "instance_id": row.instance_id}
        labels = {"label": row.label, "new_label": self.new_label}
        kind = "drop" if self.new_label is None else "relabel"
        return PruneItem.model_validate(
            {"kind": kind, **common, **place, **labels, "reason": reason}
        )


def harmful_tasks(run: SavedRun) -> list[Candidate]:
    """Tasks that the run flags as harmful."""
    return _worst_first(
        Candidate(row, row.influence, row.harmful_q, f"harmful, robust z {row.influence_z:.1f}")
        for row in run.tasks
        if row.harmful
    )


def tasks_with_wrong_labels(run: SavedRun) -> list[Candidate]:
    """Tasks in which any label is estimated to be wrong."""
    return _worst_first(
        Candidate(row, row.label_noise, row.noisy_q, _wrong_labels(row))
        for row in run.tasks
        if row.label_noise > 0
    )


def noisy_tasks(run: SavedRun) -> list[Candidate]:
    """Tasks that the run flags as noisy."""
    return _worst_first(
        Candidate(row, row.label_noise, row.noisy_q, f"noisy, {_wrong_labels(row)}")
        for row in _of_kind(run, "noisy")
    )


def contradictory_tasks(run: SavedRun) -> list[Candidate]:
    """Tasks that the run flags as contradictory."""
    return _worst_first(
        Candidate(
            row,
            row.contradiction,
            row.contradictory_q,
            "contradictory, the query follows another naming of the classes (log likelihood "
            f"ratio {row.contradiction:.1f})",
        )
        for row in _of_kind(run, "contradictory")
    )


def outlying_tasks(run: SavedRun) -> list[Candidate]:
    """Tasks that the run flags as outliers."""
    return _worst_first(
        Candidate(
            row,
            row.outlier_z,
            row.outlier_q,
            f"outlier, robust z {row.outlier_z:.1f} of the loss after adaptation",
        )
        for row in _of_kind(run, "outlier")
    )


def spare_tasks(run: SavedRun) -> list[Candidate]:
    """Tasks that repeat another one; the first of each group, by id, stays."""
    stays = {task_id: group[0] for group in duplicate_groups(run) for task_id in group[1:]}
    return _worst_first(
        Candidate(
            row,
            float(row.duplicates),
            None,
            f"duplicate, has the images of {stays[row.task_id]}, which stays",
        )
        for row in run.tasks
        if row.task_id in stays
    )


def suspicious_instances(run: SavedRun) -> list[Candidate]:
    """Occurrences that the run flags as mislabeled."""
    return _worst_first(
        Candidate(row, row.mislabel_score, row.q_value, f"mislabeled, {_labels(run, row)}")
        for row in run.instances
        if row.mislabeled
    )


def mislabeled_instances(run: SavedRun) -> list[Candidate]:
    """All occurrences of every item that the run flags as mislabeled."""
    flagged = {item.instance_id: item for item in run.items if item.mislabeled}
    return _worst_first(
        Candidate(row, item.mislabel_score, item.q_value, _of_item(item))
        for row in run.instances
        for item in [flagged.get(row.instance_id)]
        if item is not None
    )


def relabeled_instances(run: SavedRun) -> list[Candidate]:
    """Occurrences that the run flags as mislabeled, each with the label that it suggests."""
    return _worst_first(
        Candidate(
            row,
            row.mislabel_score,
            row.q_value,
            f"mislabeled, {_labels(run, row)}",
            row.suggested_label,
        )
        for row in run.instances
        if row.mislabeled and row.suggested_label != row.label
    )


def harmful_instances(run: SavedRun) -> list[Candidate]:
    """Occurrences whose influence is an outlier among all.

    A positive influence is no evidence (about half of clean data has one), so the robust z has to
    exceed ``OUTLIER_Z``. Influences have heavier tails than a normal distribution: expect a few
    outliers in clean data too.
    """
    scores = robust_z(np.array([row.influence for row in run.instances], dtype=np.float64))
    return _worst_first(
        Candidate(row, row.influence, None, f"influence is an outlier, robust z {z:.1f}")
        for row, z in zip(run.instances, scores, strict=True)
        if z > OUTLIER_Z
    )


CANDIDATES: dict[tuple[str | None, str], Callable[[SavedRun], list[Candidate]]] = {
    ("tasks", "influence"): harmful_tasks,
    ("tasks", "harmful"): harmful_tasks,
    ("tasks", "label_noise"): tasks_with_wrong_labels,
    ("tasks", "noisy"): noisy_tasks,
    ("tasks", "contradictory"): contradictory_tasks,
    ("tasks", "duplicate"): spare_tasks,
    ("tasks", "outlier"): outlying_tasks,
    ("instances", "mislabel_score"): suspicious_instances,
    ("instances", "mislabeled"): mislabeled_instances,
    ("instances", "influence"): harmful_instances,
    (None, "mislabeled"): relabeled_instances,
}
"""By what is dropped (none: labels are changed) and by the score or rule that decides."""


def _of_kind(run: SavedRun, kind: str) -> list[TaskRow]:
    return [row for row in run.tasks if kind in row.kinds.split()]


def _wrong_labels(row: TaskRow) -> str:
    return f"an estimated {row.label_noise:.0%} of labels are wrong"


def _labels(run: SavedRun, row: InstanceRow) -> str:
    names = dict(enumerate(run.class_names.get(row.task_id, [])))

    def shown(label: int) -> str:
        return f"{label} ({names[label]})" if names.get(label) else f"{label}"

    return f"labelled {shown(row.label)}, suggested {shown(row.suggested_label)}"


def _of_item(item: ItemRow) -> str:
    return (
        f"mislabeled in {item.flagged} of {item.occurrences} places, labelled {item.label}, "
        f"suggested {item.suggested_label}"
    )


def _worst_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(
        (candidate for candidate in candidates if math.isfinite(candidate.score)),
        key=lambda candidate: (-candidate.score, candidate.row.task_id, candidate.row.rank),
    )
