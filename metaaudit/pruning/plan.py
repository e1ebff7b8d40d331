"""The plan of what goes or gets another label, and why; it changes nothing on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from metaaudit.errors import RunError

SCHEMA_VERSION = 2
NOTE = (
    "noisy is not always harmful: train on the pruned copy and compare its evaluation loss with "
    "that of this run before you keep it"
)

Subject = Literal["tasks", "instances"]
By = Literal[
    "influence",
    "label_noise",
    "mislabel_score",
    "harmful",
    "mislabeled",
    "noisy",
    "contradictory",
    "duplicate",
    "outlier",
]
"""A score, or the name of a rule."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PruneItem(_Model):
    """A task or an occurrence of an instance, and why it goes, gets another label, or stays.

    Attributes:
        kind: ``drop`` or ``relabel``.
        task_id: The task, or the task that the instance is in.
        set: ``support`` or ``query``; none for a task, as are the next three.
        index: Position within the set, from 0.
        instance_id: The image's id.
        label: The given label.
        new_label: The label that takes its place; of ``relabel`` alone.
        score: The score that ranked it.
        q_value: The smallest false-discovery rate at which it would be flagged; none where no rule
            with chance decides.
        reason: In words.
    """

    kind: Literal["drop", "relabel"]
    task_id: str
    set: Literal["support", "query"] | None = None
    index: int | None = None
    instance_id: str | None = None
    label: int | None = None
    new_label: int | None = None
    score: float
    q_value: float | None = None
    reason: str = ""

    @property
    def place(self) -> tuple[str, str | None, int | None]:
        """Where it is."""
        return self.task_id, self.set, self.index


class Counts(_Model):
    """How many there are.

    Attributes:
        total: All tasks, or all occurrences of instances.
        candidates: Those that a score or rule gives reason to change.
        dropped: Items that go.
        relabeled: Items that get another label.
        kept_by_guard: Candidates that a guard keeps.
        left_out_by_max_fraction: Candidates that stay because of ``max_fraction``.
    """

    total: int
    candidates: int
    dropped: int
    relabeled: int
    kept_by_guard: int
    left_out_by_max_fraction: int


class PrunePlan(_Model):
    """What to change in the training tasks of a run. A person may edit it before it is applied.

    Attributes:
        schema_version: Of the file.
        run: Name of the run's folder.
        tasks_sha256: The training tasks that were scored.
        drop: What goes; none where labels are changed instead.
        by: The score or rule that decides.
        max_fraction: At most this share of all tasks or instances is changed.
        min_per_class: So many support instances of every class stay in each task, or so many
            instances of every class in a labelled data set.
        counts: How many, when the plan was made.
        note: What to keep in mind.
        check: Commands that tell whether it was for the better.
        items: What is changed, worst first.
        kept: Candidates that a guard keeps, with its reason.
    """

    schema_version: Literal[2] = 2
    run: str
    tasks_sha256: str
    drop: Subject | None
    by: By
    max_fraction: float = Field(gt=0, le=1)
    min_per_class: int = Field(ge=1)
    counts: Counts
    note: str = NOTE
    check: tuple[str, ...] = ()
    items: tuple[PruneItem, ...]
    kept: tuple[PruneItem, ...] = ()

    @property
    def subject(self) -> Subject:
        """What is changed: whole tasks, or instances in them."""
        return self.drop or "instances"

    @property
    def relabels(self) -> bool:
        """Whether any item gets another label."""
        return any(item.kind == "relabel" for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values, for ``metaaudit.runs.atomic.write_json``."""
        return self.model_dump(mode="json")


def most_items(max_fraction: float, total: int) -> int:
    """``floor(max_fraction * total)`` of the decimal that was typed, not its binary neighbour.

    Raises:
        RunError: The fraction is not in (0, 1].

    >>> most_items(0.29, 100)
    29
    """
    if not 0 < max_fraction <= 1:
        raise RunError("--max-fraction", f"is {max_fraction}", "a number above 0 and at most 1")
    return math.floor(Fraction(str(max_fraction)) * total)


def counts_of(
    items: Sequence[PruneItem], *, total: int, candidates: int, kept: int, left_out: int
) -> Counts:
    """The counts of a plan with these items."""
    relabeled = sum(item.kind == "relabel" for item in items)
    return Counts(
        total=total,
        candidates=candidates,
        dropped=len(items) - relabeled,
        relabeled=relabeled,
        kept_by_guard=kept,
        left_out_by_max_fraction=left_out,
    )
