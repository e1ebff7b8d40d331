"""What is a finding and why; computes no scores and imports no torch."""

from metaaudit.findings.finding import (
    SCHEMA_VERSION,
    WATCHED,
    Counts,
    Finding,
    Findings,
    Place,
    Thresholds,
)
from metaaudit.findings.fingerprint import fingerprint
from metaaudit.findings.rules import BY_NAME, RULES, Rule, RuleName

__all__ = [
    "BY_NAME",
    "RULES",
    "SCHEMA_VERSION",
    "WATCHED",
    "Counts",
    "Finding",
    "Findings",
    "Place",
    "Rule",
    "RuleName",
    "Thresholds",
    "fingerprint",
]
