"""Findings as they stand in ``findings.json``; the models give its published JSON Schema."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from metaaudit.findings.rules import RuleName

SCHEMA_VERSION = 2
WATCHED = 0.25
"""Up to this q-value something is kept as borderline, so that a gate can watch it."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Place(_Model):
    """Where an instance occurs.

    Attributes:
        task_id: The task.
        set: ``support`` or ``query``.
        index: Position within the set, from 0.
    """

    task_id: str
    set: Literal["support", "query"]
    index: int


class Finding(_Model):
    """One task or instance that a rule flags, or nearly does.

    Attributes:
        rule: The rule.
        fingerprint: SHA-256 of the rule and of the content of what it flags; neither rank, score,
            path nor order enters.
        subject: Id of the task or of the instance.
        flagged: Whether it is flagged at the rate that the run was configured with; otherwise it is
            borderline.
        q_value: The smallest false-discovery rate at which it would be flagged; none for rules
            that involve no chance.
        score: The statistic of the rule, larger is worse; it ranks the findings on tasks. Those on
            instances are ranked by how surely they are wrong, and this is their mislabel score.
        message: One sentence that starts with the subject's id.
        evidence: What else speaks for it or explains it, one sentence each.
        label: Given label of an instance, as ``items.csv`` has it.
        suggested_label: The label that its tasks suggest.
        places: Where an instance occurs; empty for a task.
    """

    rule: RuleName
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    subject: str
    flagged: bool
    q_value: float | None
    score: float
    message: str
    evidence: tuple[str, ...] = ()
    label: str | None = None
    suggested_label: str | None = None
    places: tuple[Place, ...] = ()


class Counts(_Model):
    """How many there are of everything, and how many of them are flagged.

    Attributes:
        tasks: Training tasks.
        instances: Occurrences of instances in them.
        items: Different instances.
        eval_tasks: Evaluation tasks.
        mislabeled_instances: Flagged occurrences.
        flagged: Flagged tasks or items, by rule.
    """

    tasks: int
    instances: int
    items: int
    eval_tasks: int
    mislabeled_instances: int
    flagged: dict[RuleName, int]


class Thresholds(_Model):
    """The smallest flagged statistic; none where nothing is flagged.

    Attributes:
        influence_z: Of a harmful task.
        mislabel_score: Of a mislabeled occurrence.
    """

    influence_z: float | None
    mislabel_score: float | None


class Findings(_Model):
    """A whole ``findings.json``.

    Attributes:
        schema_version: Of this file.
        sign: The sign convention of influence.
        counts: How many.
        thresholds: Where the flags begin.
        estimated_wrong_labels: Estimated number of wrong labels among all occurrences, rather too
            low than too high.
        findings: By rule, the worst first; borderline ones after the flagged ones of their rule.
        warnings: What to keep in mind in reading them.
    """

    schema_version: Literal[2] = 2
    sign: str
    counts: Counts
    thresholds: Thresholds
    estimated_wrong_labels: float
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]

    def of(self, rule: RuleName) -> tuple[Finding, ...]:
        """All findings of a rule, borderline ones too."""
        return tuple(finding for finding in self.findings if finding.rule == rule)
