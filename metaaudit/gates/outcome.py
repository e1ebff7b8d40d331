"""What a gate makes of the findings of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metaaudit.findings import Finding, RuleName

Status = Literal["new", "known", "suppressed", "borderline"]


@dataclass(frozen=True)
class Judged:
    """A finding and what becomes of it.

    Attributes:
        finding: The finding.
        status: ``new`` counts against the gate of its rule; ``known`` is in the baseline,
            ``suppressed`` has a suppression that holds, ``borderline`` is above the gate's rate.
        reason: Of a suppression; else empty.
    """

    finding: Finding
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class RuleOutcome:
    """The gate of one rule.

    Attributes:
        rule: The rule.
        limit: So many new findings pass.
        judged: All findings of the rule, the worst first.
    """

    rule: RuleName
    limit: int
    judged: tuple[Judged, ...]

    @property
    def new(self) -> tuple[Finding, ...]:
        """The findings that count."""
        return tuple(one.finding for one in self.judged if one.status == "new")

    @property
    def failed(self) -> bool:
        """Whether there are more than pass."""
        return len(self.new) > self.limit


@dataclass(frozen=True)
class Outcome:
    """The gates of all rules that have one.

    Attributes:
        rules: In the order of ``RULES``; without the rules that no gate is configured for.
        stale: Lines for entries of the baseline that are no longer found.
        notes: Lines on suppressions that have expired or match nothing.
    """

    rules: tuple[RuleOutcome, ...]
    stale: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether any gate failed."""
        return any(rule.failed for rule in self.rules)
