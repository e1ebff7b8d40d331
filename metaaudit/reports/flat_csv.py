"""All rankings as one flat table, and that table as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict

from metaaudit.printable import printable
from metaaudit.runs.saved import SavedRun

Value = str | int | float | bool | None

COLUMNS: dict[str, type] = {
    "kind": str,
    "rank": int,
    "task_id": str,
    "set": str,
    "index": int,
    "instance_id": str,
    "flagged": bool,
    "q_value": float,
    "kinds": str,
    "influence": float,
    "influence_low": float,
    "influence_high": float,
    "influence_spread": float,
    "influence_z": float,
    "harmful_q": float,
    "label_noise": float,
    "noisy_q": float,
    "contradiction": float,
    "contradictory_q": float,
    "outlier_z": float,
    "outlier_q": float,
    "duplicates": int,
    "alignment": float,
    "outer_loss": float,
    "grad_norm": float,
    "mislabel_score": float,
    "label": str,
    "suggested_label": str,
    "loss": float,
    "occurrences": int,
    "flagged_occurrences": int,
    "content": str,
}
"""The columns and their types; any value may be missing."""


def flat_rows(run: SavedRun) -> Iterator[dict[str, Value]]:
    """Every task, every instance, then every item, each kind in its own ranking.

    ``flagged`` is ``harmful`` of a task, and ``mislabeled`` of an instance or an item. Columns that
    do not apply to a row are left out.
    """
    for task in run.tasks:
        values = asdict(task)
        yield {"kind": "task", "flagged": values.pop("harmful"), **values}
    for instance in run.instances:
        values = asdict(instance)
        labels = {name: str(values.pop(name)) for name in ("label", "suggested_label")}
        yield {"kind": "instance", "flagged": values.pop("mislabeled"), **labels, **values}
    for item in run.items:
        values = asdict(item)
        flagged = values.pop("flagged")
        mislabeled = values.pop("mislabeled")
        yield {"kind": "item", **values, "flagged": mislabeled, "flagged_occurrences": flagged}


def render_csv(run: SavedRun) -> str:
    """The flat table; cells that do not apply are empty, and so are numbers that are not finite.

    Texts that a spreadsheet would run as a formula get a leading apostrophe, and control characters
    in them are spelled out.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in flat_rows(run))
    return out.getvalue()


def _cell(value: Value) -> str:
    if isinstance(value, str):
        return _inert(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return "" if value is None else str(value)


def _inert(text: str) -> str:
    # Control characters are spelled out: spreadsheets skip a leading tab or carriage return, and
    # the csv module of Python 3.11 does not quote a carriage return.
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
