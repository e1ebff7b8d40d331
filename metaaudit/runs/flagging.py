"""From the rows of a run to its findings: what is flagged, what nearly is, and why."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from metaaudit.findings import (
    RULES,
    WATCHED,
    Counts,
    Finding,
    Findings,
    Place,
    RuleName,
    Thresholds,
    fingerprint,
)
from metaaudit.inputs.task_set import SETS
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow

TaskRule = tuple[
    Callable[[TaskRow], float | None], Callable[[TaskRow], float], Callable[[TaskRow], str]
]
"""q-value, score and message of a task under a rule."""

TASK_RULES: dict[RuleName, TaskRule] = {
    "harmful": (
        lambda row: row.harmful_q,
        lambda row: row.influence_z,
        lambda row: (
            f"{row.task_id} raises the evaluation loss: its influence is {row.influence_z:.1f} "
            "robust standard deviations above the median task's"
        ),
    ),
    "noisy": (
        lambda row: row.noisy_q,
        lambda row: row.label_noise,
        lambda row: f"{row.task_id} has an estimated {row.label_noise:.0%} of wrong labels",
    ),
    "contradictory": (
        lambda row: row.contradictory_q,
        lambda row: row.contradiction,
        lambda row: (
            f"{row.task_id} has query labels that fit the support better under other names of the "
            f"classes, by a likelihood ratio of 10^{row.contradiction / 2.302585:.0f}"
        ),
    ),
    "duplicate": (
        lambda row: None if row.duplicates else 1.0,
        lambda row: float(row.duplicates),
        lambda row: (
            f"{row.task_id} has the same images as {row.duplicates} other "
            f"{'task' if row.duplicates == 1 else 'tasks'}"
        ),
    ),
    "outlier": (
        lambda row: row.outlier_q,
        lambda row: row.outlier_z,
        lambda row: (
            f"{row.task_id} is unlike the other tasks: its loss after adaptation is "
            f"{row.outlier_z:.1f} robust standard deviations above the median task's"
        ),
    ),
}


@dataclass(frozen=True)
class Flagging:
    """The rows of a run and what else is known of its tasks.

    Attributes:
        tasks: Rows of ``tasks.csv``.
        instances: Rows of ``instances.csv``.
        items: Rows of ``items.csv``.
        evidence: Sentences on tasks, by id.
    """

    tasks: Sequence[TaskRow]
    instances: Sequence[InstanceRow]
    items: Sequence[ItemRow]
    evidence: Mapping[str, Sequence[str]]

    def findings(
        self,
        *,
        estimated_wrong_labels: float,
        eval_tasks: int,
        warnings: Sequence[str],
        sign: str,
    ) -> Findings:
        """All findings, by rule, the flagged ones of a rule before the borderline ones.

        Args:
            estimated_wrong_labels: Among all occurrences.
            eval_tasks: Number of evaluation tasks.
            warnings: What to keep in mind in reading them.
            sign: What the sign of an influence says.
        """
        found = tuple(finding for rule in RULES for finding in self._of(rule))
        flagged = [row for row in self.instances if row.mislabeled]
        harmful = [row.influence_z for row in self.tasks if row.harmful]
        return Findings(
            sign=sign,
            counts=Counts(
                tasks=len(self.tasks),
                instances=len(self.instances),
                items=len(self.items),
                eval_tasks=eval_tasks,
                mislabeled_instances=len(flagged),
                flagged={
                    rule: sum(one.flagged for one in found if one.rule == rule) for rule in RULES
                },
            ),
            thresholds=Thresholds(
                influence_z=min(harmful, default=None),
                mislabel_score=min((row.mislabel_score for row in flagged), default=None),
            ),
            estimated_wrong_labels=estimated_wrong_labels,
            findings=found,
            warnings=tuple(warnings),
        )

    def _of(self, rule: RuleName) -> list[Finding]:
        if rule == "mislabeled":
            rows = (row for row in self.items if row.mislabeled or row.q_value <= WATCHED)
            return sorted((self._item(row) for row in rows), key=lambda one: not one.flagged)
        q_value = TASK_RULES[rule][0]
        near = [row for row in self.tasks if (q := q_value(row)) is None or q <= WATCHED]
        found = (self._task(rule, row) for row in near)
        return sorted(found, key=lambda one: (not one.flagged, -one.score, one.subject))

    def _task(self, rule: RuleName, row: TaskRow) -> Finding:
        q_value, score, message = TASK_RULES[rule]
        return Finding(
            rule=rule,
            fingerprint=fingerprint(rule, row.content),
            subject=row.task_id,
            flagged=row.harmful if rule == "harmful" else rule in row.kinds.split(),
            q_value=q_value(row),
            score=score(row),
            message=message(row),
            evidence=(*self._task_facts(rule, row), *self.evidence.get(row.task_id, ())),
        )

    def _task_facts(self, rule: RuleName, row: TaskRow) -> list[str]:
        flagged = sum(one.mislabeled for one in self._by_task[row.task_id])
        facts = [
            f"{flagged} of {len(self._by_task[row.task_id])} labels flagged as wrong, "
            f"an estimated {row.label_noise:.0%} wrong",
            f"loss after adaptation {row.outer_loss:.3g}, median task {self._median_loss:.3g}",
            f"gradient norm {row.grad_norm:.3g}, median task {self._median_norm:.3g}; its cosine "
            f"with the other tasks' mean {row.alignment:+.2f}, median {self._median_cosine:+.2f}",
        ]
        if row.influence_low is not None and row.influence_high is not None:
            facts.insert(
                0,
                f"influence {row.influence:+.3g}, between {row.influence_low:+.3g} and "
                f"{row.influence_high:+.3g} (95%, over evaluation tasks)",
            )
        return [*facts, *(f"also {kind}" for kind in row.kinds.split() if kind != rule)]

    def _item(self, row: ItemRow) -> Finding:
        places = sorted(self._places[row.instance_id], key=lambda one: one.rank)
        times = "once" if row.occurrences == 1 else f"{row.occurrences} times"
        return Finding(
            rule="mislabeled",
            fingerprint=fingerprint("mislabeled", row.content),
            subject=row.instance_id,
            flagged=row.mislabeled,
            q_value=row.q_value,
            score=row.mislabel_score,
            message=(
                f"{row.instance_id} is labelled {row.label}; its tasks suggest "
                f"{row.suggested_label}"
            ),
            evidence=(f"occurs {times}, flagged in {row.flagged}",),
            label=row.label,
            suggested_label=row.suggested_label,
            places=tuple(
                Place(task_id=one.task_id, set=SETS[one.set == "query"], index=one.index)
                for one in places
            ),
        )

    @cached_property
    def _by_task(self) -> dict[str, list[InstanceRow]]:
        groups: dict[str, list[InstanceRow]] = defaultdict(list)
        for row in self.instances:
            groups[row.task_id].append(row)
        return groups

    @cached_property
    def _places(self) -> dict[str, list[InstanceRow]]:
        groups: dict[str, list[InstanceRow]] = defaultdict(list)
        for row in self.instances:
            groups[row.instance_id].append(row)
        return groups

    @cached_property
    def _median_loss(self) -> float:
        return statistics.median(row.outer_loss for row in self.tasks)

    @cached_property
    def _median_norm(self) -> float:
        return statistics.median(row.grad_norm for row in self.tasks)

    @cached_property
    def _median_cosine(self) -> float:
        return statistics.median(row.alignment for row in self.tasks)
