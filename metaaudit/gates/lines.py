"""What a gate decided, in plain lines."""

from __future__ import annotations

from collections import Counter

from metaaudit.gates.outcome import Outcome, RuleOutcome


def outcome_lines(outcome: Outcome) -> list[str]:
    """A line for each rule that has a gate, then what is stale and what to note."""
    return [
        *(_rule_line(rule) for rule in outcome.rules),
        *(f"stale: {text}" for text in outcome.stale),
        *(f"note: {text}" for text in outcome.notes),
    ]


def _rule_line(rule: RuleOutcome) -> str:
    counts = Counter(judged.status for judged in rule.judged)
    verdict = "FAILED" if rule.failed else "passed"
    line = (
        f"gate {rule.rule}: {verdict}, {counts['new']} new ({rule.limit} allowed), "
        f"{counts['known']} known, {counts['suppressed']} suppressed"
    )
    return f"{line}, {counts['borderline']} borderline" if counts["borderline"] else line
