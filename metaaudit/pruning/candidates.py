"""What a score gives reason to drop, worst first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from metaaudit.robust import robust_z
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow, TaskRow

OUTLIER_Z = 4.0
"""Robust standard deviations above the median at which an instance's influence is an outlier."""


@dataclass(frozen=True)
class Candidate:
    """A task or instance that may go, the score that says so and the reason in words."""

    row: TaskRow | InstanceRow
    score: float
    reason: str


def harmful_tasks(run: SavedRun) -> list[Candidate]:
    """Tasks that the run flags as harmful."""
    return _worst_first(
        Candidate(row, row.influence, f"flagged harmful, robust z {row.influence_z:.1f}")
        for row in run.tasks
        if row.harmful
    )


def noisy_tasks(run: SavedRun) -> list[Candidate]:
    """Tasks in which any label is estimated to be wrong."""
    return _worst_first(
        Candidate(row, row.label_noise, f"an estimated {row.label_noise:.0%} of labels are wrong")
        for row in run.tasks
        if row.label_noise > 0
    )


def mislabeled_instances(run: SavedRun) -> list[Candidate]:
    """Instances that the run flags as mislabeled."""
    return _worst_first(
        Candidate(
            row,
            row.mislabel_score,
            f"flagged mislabeled, labelled {row.label}, suggested {row.suggested_label}",
        )
        for row in run.instances
        if row.mislabeled
    )


def harmful_instances(run: SavedRun) -> list[Candidate]:
    """Instances whose influence is an outlier among all instances.

    A positive influence is no evidence (about half of clean data has one), so the robust z has to
    exceed ``OUTLIER_Z``. Influences have heavier tails than a normal distribution: expect a few
    outliers in clean data too.
    """
    scores = robust_z(np.array([row.influence for row in run.instances], dtype=np.float64))
    return _worst_first(
        Candidate(row, row.influence, f"influence is an outlier, robust z {z:.1f}")
        for row, z in zip(run.instances, scores, strict=True)
        if z > OUTLIER_Z
    )


def _worst_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(
        (candidate for candidate in candidates if math.isfinite(candidate.score)),
        key=lambda candidate: (-candidate.score, candidate.row.task_id, candidate.row.rank),
    )
