"""Both rankings as one flat CSV table, for spreadsheets."""

from __future__ import annotations

import csv
import io
import math

from metaaudit.reports.text import printable
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow, TaskRow

COLUMNS = (
    "kind",
    "rank",
    "task_id",
    "set",
    "index",
    "instance_id",
    "flagged",
    "influence",
    "influence_z",
    "label_noise",
    "mislabel_score",
    "label",
    "suggested_label",
)


def render_csv(run: SavedRun) -> str:
    """Every task, then every instance, each in its own ranking; cells that do not apply are empty.

    Ids that a spreadsheet would run as a formula get a leading apostrophe, and control characters
    in ids are spelled out.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_task(row) for row in run.tasks)
    writer.writerows(_instance(row) for row in run.instances)
    return out.getvalue()


def _task(row: TaskRow) -> dict[str, object]:
    return {
        "kind": "task",
        "rank": row.rank,
        "task_id": _inert(row.task_id),
        "flagged": _bool(row.harmful),
        "influence": _float(row.influence),
        "influence_z": _float(row.influence_z),
        "label_noise": _float(row.label_noise),
    }


def _instance(row: InstanceRow) -> dict[str, object]:
    return {
        "kind": "instance",
        "rank": row.rank,
        "task_id": _inert(row.task_id),
        "set": _inert(row.set),
        "index": row.index,
        "instance_id": _inert(row.instance_id),
        "flagged": _bool(row.mislabeled),
        "influence": _float(row.influence),
        "mislabel_score": _float(row.mislabel_score),
        "label": row.label,
        "suggested_label": row.suggested_label,
    }


def _inert(text: str) -> str:
    # Control characters are spelled out: spreadsheets skip a leading tab or carriage return, and
    # the csv module of Python 3.11 does not quote a carriage return.
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _float(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
