"""What a gate might make of the findings of a small run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from metaaudit.findings import RULES, RuleName
from metaaudit.gates import Judged, Outcome, RuleOutcome, Status
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import TaskRow
from tests.run_folder import task_rows


def tasks_and_a_borderline_one() -> list[TaskRow]:
    """The rows of ``task_rows``; ``task-2`` is nearly harmful."""
    tasks = task_rows()
    tasks[2] = dataclasses.replace(tasks[2], harmful_q=0.2)
    return tasks


def outcome_of(
    run: SavedRun,
    rules: Sequence[RuleName] = RULES,
    limit: int = 0,
    statuses: Mapping[tuple[RuleName, str], Status] | None = None,
    reason: str = "",
) -> Outcome:
    """All flagged findings are new, unless ``statuses`` says otherwise by rule and subject."""
    statuses = statuses or {}
    return Outcome(
        tuple(
            RuleOutcome(
                rule,
                limit,
                tuple(
                    Judged(
                        one,
                        status := statuses.get(
                            (rule, one.subject), "new" if one.flagged else "borderline"
                        ),
                        reason if status == "suppressed" else "",
                    )
                    for one in run.findings.of(rule)
                ),
            )
            for rule in rules
        )
    )
