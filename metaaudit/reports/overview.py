"""What the page says first: how much each rule flags, and what the gates make of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import get_args

from metaaudit.findings import BY_NAME, RULES, Rule, RuleName
from metaaudit.gates import Status
from metaaudit.reports.views import FindingView, Places

MAX_LISTED = 100
_STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Gate:
    """The gate of one rule.

    Attributes:
        failed: Whether there are more new findings than pass.
        limit: So many new ones pass.
        counts: Number of findings by status.
        lists: The findings themselves, at most ``MAX_LISTED`` of a status.
    """

    failed: bool
    limit: int
    counts: dict[Status, int]
    lists: dict[Status, list[FindingView]]


@dataclass(frozen=True)
class RuleView:
    """How much a rule flags.

    Attributes:
        rule: The rule.
        count: Number of flagged tasks or items.
        total: Number of tasks or items.
        borderline: Number of those that are nearly flagged.
        gate: Its gate; none without one.
    """

    rule: Rule
    count: int
    total: int
    borderline: int
    gate: Gate | None


def rule_views(places: Places) -> list[RuleView]:
    """All rules, in their order."""
    findings, gates = places.run.findings, _gates(places)
    borderline = Counter(one.rule for one in findings.findings if not one.flagged)
    totals = {"task": findings.counts.tasks, "instance": findings.counts.items}
    return [
        RuleView(
            rule=BY_NAME[name],
            count=findings.counts.flagged.get(name, 0),
            total=totals[BY_NAME[name].subject],
            borderline=borderline[name],
            gate=gates.get(name),
        )
        for name in RULES
    ]


def _gates(places: Places) -> dict[RuleName, Gate]:
    gates: dict[RuleName, Gate] = {}
    for outcome in places.outcome.rules if places.outcome else ():
        of = {status: [o for o in outcome.judged if o.status == status] for status in _STATUSES}
        gates[outcome.rule] = Gate(
            failed=outcome.failed,
            limit=outcome.limit,
            counts={status: len(judged) for status, judged in of.items()},
            lists={
                status: places.findings(one.finding for one in judged[:MAX_LISTED])
                for status, judged in of.items()
            },
        )
    return gates
