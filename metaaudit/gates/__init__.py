"""Whether the findings of a run pass a check; computes no scores and imports no torch."""

from metaaudit.gates.baseline import (
    Baseline,
    compare_baseline,
    create_baseline,
    read_baseline,
    update_baseline,
    write_baseline,
)
from metaaudit.gates.choosing import chosen_gate, saved_gate
from metaaudit.gates.evaluate import Allowed, judge
from metaaudit.gates.lines import outcome_lines
from metaaudit.gates.outcome import Judged, Outcome, RuleOutcome, Status
from metaaudit.gates.rates import rule_gates
from metaaudit.gates.selecting import described, select
from metaaudit.gates.suppressions import (
    Suppression,
    add_suppressions,
    parse_date,
    read_suppressions,
)

__all__ = [
    "Allowed",
    "Baseline",
    "Judged",
    "Outcome",
    "RuleOutcome",
    "Status",
    "Suppression",
    "add_suppressions",
    "chosen_gate",
    "compare_baseline",
    "create_baseline",
    "described",
    "judge",
    "outcome_lines",
    "parse_date",
    "read_baseline",
    "read_suppressions",
    "rule_gates",
    "saved_gate",
    "select",
    "update_baseline",
    "write_baseline",
]
