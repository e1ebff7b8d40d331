"""A run as one JSON document, for programs."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from metaaudit.gates import Outcome
from metaaudit.reports.comparison import Comparison
from metaaudit.reports.headline import headline, run_name, warnings
from metaaudit.reports.text import without_folder
from metaaudit.runs import atomic
from metaaudit.runs.saved import SavedRun

SCHEMA_VERSION = 2
# The packages, timings and the resolved configuration stay in manifest.json.
_FROM_MANIFEST = (
    "metaaudit_version",
    "seeds",
    "data",
    "device",
    "dtype",
    "solver",
    "coverage",
    "evaluation",
)


def render_json(
    run: SavedRun, outcome: Outcome | None = None, comparison: Comparison | None = None
) -> str:
    """Findings, rankings and what produced them, with sorted keys.

    ``gate`` and ``comparison`` are there where they are given. A number that is not finite becomes
    ``null``, since JSON has no NaN.
    """
    report = {
        "schema_version": SCHEMA_VERSION,
        "run": run_name(run),
        "headline": headline(run),
        "sign": run.findings.sign,
        "warnings": warnings(run),
        "findings": run.findings.model_dump(mode="json"),
        "tasks": [asdict(row) for row in run.tasks],
        "instances": [asdict(row) for row in run.instances],
        "items": [asdict(row) for row in run.items],
        "manifest": {
            **{key: run.manifest.get(key) for key in _FROM_MANIFEST},
            "checkpoints": [
                {**checkpoint, "path": without_folder(checkpoint["path"])}
                for checkpoint in run.manifest["checkpoints"]
            ],
        },
    }
    if outcome is not None:
        report["gate"] = _gate(outcome)
    if comparison is not None:
        report["comparison"] = _comparison(comparison)
    return json_text(report)


def json_text(value: Any) -> str:
    """Indented JSON with sorted keys and without NaN."""
    return atomic.json_text(_finite(value), sort_keys=True)


def _gate(outcome: Outcome) -> dict[str, Any]:
    return {
        "failed": outcome.failed,
        "stale": list(outcome.stale),
        "notes": list(outcome.notes),
        "rules": [
            {
                "rule": rule.rule,
                "limit": rule.limit,
                "failed": rule.failed,
                "findings": [
                    {
                        "fingerprint": one.finding.fingerprint,
                        "subject": one.finding.subject,
                        "status": one.status,
                        "reason": one.reason,
                    }
                    for one in rule.judged
                ],
            }
            for rule in outcome.rules
        ],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    kept = ("other", "rank_correlation", "common_tasks", "only_here", "only_there")
    return {
        **{name: getattr(comparison, name) for name in (*kept, "data_changed")},
        "checkpoints_changed": comparison.checkpoints_changed,
        "settings": [
            {"key": key, "here": here, "there": there} for key, here, there in comparison.settings
        ],
        **{
            name: [one.model_dump(mode="json") for one in getattr(comparison, name)]
            for name in ("appeared", "vanished", "stayed")
        },
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
