"""Runs with findings as a test wants them."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import tempfile
from pathlib import Path

from metaaudit.config.gate import GateConfig, RuleGate
from metaaudit.findings import Finding, RuleName, fingerprint
from metaaudit.gates import Suppression
from metaaudit.runs.saved import SavedRun
from tests.run_folder import content, write_run

TODAY = datetime.date(2030, 6, 15)


def finding(
    subject: str,
    q_value: float | None = 0.01,
    rule: RuleName = "mislabeled",
    *,
    flagged: bool | None = None,
    same_as: str = "",
) -> Finding:
    """A finding; with the content of another subject, its fingerprint is that one's."""
    return Finding(
        rule=rule,
        fingerprint=fingerprint(rule, content(same_as or subject)),
        subject=subject,
        flagged=q_value is None or q_value <= 0.05 if flagged is None else flagged,
        q_value=q_value,
        score=1.0,
        message=f"{subject} is {rule}",
    )


@functools.cache
def _any_run() -> SavedRun:
    with tempfile.TemporaryDirectory() as folder:
        return write_run(Path(folder))


def run_of(*findings: Finding) -> SavedRun:
    """A run of 8 tasks and 64 items with these findings and no others; its folder is gone."""
    run = _any_run()
    return dataclasses.replace(run, findings=run.findings.model_copy(update={"findings": findings}))


def gate(release: float = 0.2, baseline: Path | None = None, **rules: RuleGate) -> GateConfig:
    """A gate of these rules; of ``mislabeled`` with the defaults, if none is named."""
    chosen = rules or {"mislabeled": RuleGate()}
    return GateConfig(release=release, baseline=baseline, **chosen)  # type: ignore[arg-type]


def suppression(one: Finding, expires: datetime.date, reason: str = "seen") -> Suppression:
    """A suppression of a finding."""
    return Suppression.model_validate(
        {
            "fingerprint": one.fingerprint,
            "rule": one.rule,
            "reason": reason,
            "expires": expires.isoformat(),
            "subject": one.subject,
        }
    )
