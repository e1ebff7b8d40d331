"""Which rules have a gate, and which findings are within a rate."""

from __future__ import annotations

from metaaudit.config.gate import GateConfig, RuleGate
from metaaudit.findings import RULES, Finding, RuleName

Key = tuple[RuleName, str]
"""A rule and a fingerprint: what makes two findings the same one."""


def rule_gates(gate: GateConfig) -> dict[RuleName, RuleGate]:
    """The gates that there are, in the order of ``RULES``."""
    gates: dict[RuleName, RuleGate | None] = {rule: getattr(gate, rule) for rule in RULES}
    return {rule: one for rule, one in gates.items() if one is not None}


def within(finding: Finding, rate: float | None) -> bool:
    """Whether a finding counts at a false-discovery rate; without a q-value it always does.

    Without a rate, it counts where the run flags it.
    """
    if rate is None:
        return finding.flagged
    return finding.q_value is None or finding.q_value <= rate


def key_of(finding: Finding) -> Key:
    """The finding's rule and fingerprint."""
    return finding.rule, finding.fingerprint
