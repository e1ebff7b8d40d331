"""The two ranked tables of a run, as rows and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from metaaudit.errors import RunError


@dataclass(frozen=True)
class TaskRow:
    """One line of ``tasks.csv``.

    Attributes:
        rank: 1 is the most harmful.
        task_id: The task's id.
        influence: Influence on the mean evaluation loss; positive = harmful.
        influence_z: Robust z-score (median, MAD) of the influence over tasks.
        harmful: Whether the outlier test flags the task.
        label_noise: Estimated share of wrong labels in the task, in [0, 1].
        outer_loss: Query loss after adaptation to the support set.
        grad_norm: Euclidean norm of the task's total gradient.
    """

    rank: int
    task_id: str
    influence: float
    influence_z: float
    harmful: bool
    label_noise: float
    outer_loss: float
    grad_norm: float


@dataclass(frozen=True)
class InstanceRow:
    """One line of ``instances.csv``: one occurrence of an image in a task.

    Attributes:
        rank: 1 is the most suspicious.
        task_id: The task it occurs in.
        set: ``support`` or ``query``.
        index: Position within that set, from 0.
        instance_id: The image's id.
        label: Its given label within the task.
        suggested_label: The label that the rest of the task suggests.
        mislabel_score: 1 minus the out-of-fold probability of the given label.
        mislabeled: Whether confident learning flags the label.
        influence: Influence on the mean evaluation loss; positive = harmful.
        loss: Loss after adaptation to the support set.
    """

    rank: int
    task_id: str
    set: str
    index: int
    instance_id: str
    label: int
    suggested_label: int
    mislabel_score: float
    mislabeled: bool
    influence: float
    loss: float


Row = TypeVar("Row", TaskRow, InstanceRow)


def csv_text(kind: type[Row], rows: Sequence[Row]) -> str:
    """The rows as CSV with a header. Floats are written so that they read back exactly."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    for row in rows:
        writer.writerow([_cell(value) for value in astuple(row)])
    return out.getvalue()


def read_csv(kind: type[Row], path: Path) -> list[Row]:
    """Reads back what ``csv_text`` wrote.

    Raises:
        RunError: The file is missing, or its columns or values are not those of ``kind``.
    """
    columns = {field.name: str(field.type) for field in fields(kind)}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames != list(columns):
                raise RunError(path, f"has columns {reader.fieldnames}", f"{list(columns)}")
            return [
                kind(**{name: _value(columns[name], line[name]) for name in columns})
                for line in reader
            ]
    except OSError as error:
        raise RunError(path, f"cannot be read ({error.strerror})", "a finished run") from None
    except (ValueError, TypeError, csv.Error, UnicodeDecodeError) as error:
        raise RunError(
            path, f"holds a bad row ({error})", remedy="score again into a new folder"
        ) from None


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else value


def _value(kind: str, text: str) -> Any:
    if kind == "bool":
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text == "true"
    return {"int": int, "float": float, "str": str}[kind](text)
