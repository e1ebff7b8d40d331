"""The gates of a run: which findings count, and whether there are more than may pass."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from fractions import Fraction

from metaaudit.config.gate import GateConfig, RuleGate
from metaaudit.findings import Counts, Finding, RuleName
from metaaudit.gates.baseline import Baseline, read_baseline
from metaaudit.gates.outcome import Judged, Outcome, RuleOutcome
from metaaudit.gates.rates import key_of, rule_gates, within
from metaaudit.gates.suppressions import Suppression, read_suppressions
from metaaudit.runs.saved import SavedRun


@dataclass(frozen=True)
class Allowed:
    """What may pass, as the files of a gate say.

    Attributes:
        baseline: Known findings.
        suppressions: Suppressed ones.
    """

    baseline: Baseline
    suppressions: tuple[Suppression, ...]

    @classmethod
    def read(cls, gate: GateConfig) -> Allowed:
        """Reads the files that a gate names.

        Raises:
            RunError: One is missing or damaged.
            ConfigError: The suppressions are no YAML.
        """
        return cls(
            read_baseline(gate.baseline) if gate.baseline else Baseline(),
            read_suppressions(gate.suppressions) if gate.suppressions else (),
        )


def judge(run: SavedRun, gate: GateConfig, today: datetime.date) -> Outcome:
    """Applies a gate to the findings of a run.

    Args:
        run: A finished run.
        gate: Its rules, and the files of what is known and suppressed.
        today: Decides which suppressions have expired.

    Raises:
        RunError: A file of the gate is missing or damaged.
        ConfigError: The suppressions are no YAML.
    """
    allowed = Allowed.read(gate)
    gates = rule_gates(gate)
    stale = allowed.baseline.stale(run.findings.findings, gate.release)
    return Outcome(
        rules=tuple(_judge_rule(run, rule, one, allowed, today) for rule, one in gates.items()),
        stale=tuple(
            f"{entry.subject} is in the baseline as {entry.rule} and no longer found"
            for entry in stale
            if entry.rule in gates
        ),
        notes=_notes(run, gate, allowed.suppressions, today),
    )


def _judge_rule(
    run: SavedRun, rule: RuleName, gate: RuleGate, allowed: Allowed, today: datetime.date
) -> RuleOutcome:
    findings = run.findings.of(rule)
    counting = [finding for finding in findings if within(finding, gate.fdr)]
    known = iter(allowed.baseline.known(counting))
    reasons = {one.key: one.reason for one in allowed.suppressions if one.holds(today)}

    def judged(finding: Finding) -> Judged:
        if not within(finding, gate.fdr):
            return Judged(finding, "borderline")
        if next(known):
            return Judged(finding, "known")
        reason = reasons.get(key_of(finding))
        return Judged(finding, "new") if reason is None else Judged(finding, "suppressed", reason)

    return RuleOutcome(
        rule, _limit(rule, gate, run.findings.counts), tuple(judged(one) for one in findings)
    )


def _limit(rule: RuleName, gate: RuleGate, counts: Counts) -> int:
    total = counts.items if rule == "mislabeled" else counts.tasks
    # The decimal that was typed, not its binary neighbour: 0.29 of 100 is 29.
    return max(gate.max_count, math.floor(Fraction(str(gate.max_fraction)) * total))


def _notes(
    run: SavedRun, gate: GateConfig, suppressions: tuple[Suppression, ...], today: datetime.date
) -> tuple[str, ...]:
    gates = rule_gates(gate)
    there = {
        key_of(one) for one in run.findings.findings if one.flagged or within(one, gate.release)
    }
    notes = []
    for one in suppressions:
        what = f"the suppression of {one.subject} as {one.rule}"
        if one.rule not in gates:
            continue
        if not one.holds(today):
            notes.append(f"{what} expired on {one.expires}: {one.reason}")
        elif one.key not in there:
            notes.append(f"{what} matches no finding; remove it")
    return tuple(notes)
