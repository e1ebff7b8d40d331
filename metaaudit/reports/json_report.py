"""A run as one JSON document, for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from metaaudit.reports.headline import headline, run_name, warnings
from metaaudit.runs.saved import SIGN, SavedRun

SCHEMA_VERSION = 1
# The packages, timings and the resolved configuration stay in manifest.json.
_FROM_MANIFEST = (
    "metaaudit_version",
    "seeds",
    "checkpoint",
    "data",
    "device",
    "dtype",
    "solver",
    "coverage",
    "evaluation",
)


def render_json(run: SavedRun) -> str:
    """Findings, both rankings and what produced them, with sorted keys.

    A number that is not finite becomes ``null``, since JSON has no NaN.
    """
    report = {
        "schema_version": SCHEMA_VERSION,
        "run": run_name(run),
        "headline": headline(run),
        "sign": SIGN,
        "warnings": warnings(run),
        "findings": run.findings,
        "tasks": [asdict(row) for row in run.tasks],
        "instances": [asdict(row) for row in run.instances],
        "manifest": {key: run.manifest.get(key) for key in _FROM_MANIFEST},
    }
    return (
        json.dumps(_finite(report), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
        + "\n"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
