"""Every finding beside what the gate makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from metaaudit.findings import RULES, Finding, RuleName
from metaaudit.gates import Outcome, RuleOutcome, Status
from metaaudit.runs.saved import SavedRun


@dataclass(frozen=True)
class Verdict:
    """A finding and what becomes of it.

    Attributes:
        finding: The finding.
        status: As the gate judges it; without a gate for its rule, ``borderline`` or none.
        fails: Whether it is new and its gate failed.
        reason: Of a suppression; else empty.
    """

    finding: Finding
    status: Status | None
    fails: bool = False
    reason: str = ""

    @property
    def open(self) -> bool:
        """Whether it is news: neither known nor suppressed nor borderline."""
        return self.status in (None, "new")


def verdicts(run: SavedRun, outcome: Outcome | None) -> list[Verdict]:
    """All findings of a run by rule, the worst first."""
    gates = {gate.rule: gate for gate in outcome.rules} if outcome else {}
    return [one for rule in RULES for one in _of(rule, run, gates.get(rule))]


def _of(rule: RuleName, run: SavedRun, gate: RuleOutcome | None) -> Iterator[Verdict]:
    if gate is None:
        for finding in run.findings.of(rule):
            yield Verdict(finding, None if finding.flagged else "borderline")
        return
    for one in gate.judged:
        fails = gate.failed and one.status == "new"
        yield Verdict(one.finding, one.status, fails, one.reason)
