"""The ranked tables of a run, as rows and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from metaaudit.errors import RunError


@dataclass(frozen=True)
class TaskRow:
    """One line of ``tasks.csv``.

    A q-value is the smallest false-discovery rate at which the row would be flagged.

    Attributes:
        rank: 1 is the most harmful.
        task_id: The task's id.
        influence: Influence on the mean evaluation loss; positive = harmful.
        influence_low: Lower end of its bootstrap interval over evaluation tasks; none where there
            is one target.
        influence_high: Upper end.
        influence_spread: Its standard deviation over checkpoints; none where there is one.
        influence_z: Robust z-score (median, MAD) of the influence over tasks.
        harmful_q: q-value of ``influence_z`` as an outlier.
        harmful: Whether the task is flagged as harmful.
        label_noise: Estimated share of wrong labels in the task, in [0, 1].
        noisy_q: q-value of the task having more wrong labels than can be put up with.
        contradiction: How much likelier the query labels are under another naming of the classes
            than the support's, as the logarithm of a likelihood ratio; 0 where none is likelier.
        contradictory_q: q-value of that.
        outlier_z: Robust z-score of the query loss after adaptation, over tasks.
        outlier_q: q-value of that.
        duplicates: Number of other tasks with the same images, in any order.
        kinds: What is wrong with the task beside harm, separated by spaces: ``noisy``,
            ``contradictory``, ``duplicate``, ``outlier``.
        alignment: Cosine of the task's total gradient and the mean of the others'.
        outer_loss: Query loss after adaptation to the support set.
        grad_norm: Euclidean norm of the task's total gradient.
        content: SHA-256 of its images and of which of them share a label, in any order.
    """

    rank: int
    task_id: str
    influence: float
    influence_low: float | None
    influence_high: float | None
    influence_spread: float | None
    influence_z: float
    harmful_q: float
    harmful: bool
    label_noise: float
    noisy_q: float
    contradiction: float
    contradictory_q: float
    outlier_z: float
    outlier_q: float
    duplicates: int
    kinds: str
    alignment: float
    outer_loss: float
    grad_norm: float
    content: str


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
        mislabel_score: How suspicious the given label is, in [0, 1]; ranks, and is no probability.
        q_value: The smallest false-discovery rate at which it would be flagged.
        mislabeled: Whether it is flagged at the configured rate.
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
    q_value: float
    mislabeled: bool
    influence: float
    loss: float


@dataclass(frozen=True)
class ItemRow:
    """One line of ``items.csv``: one image, over all tasks that it occurs in.

    Attributes:
        rank: 1 is the most suspicious.
        instance_id: The image's id.
        label: Its given label, as the data set's class, or the number within its tasks where the
            class has no name; several are joined by `` | ``.
        suggested_label: The class that its tasks suggest, likewise.
        occurrences: In how many places of tasks it stands.
        flagged: In how many of them it is flagged.
        mislabel_score: Mean over its occurrences.
        q_value: The smallest false-discovery rate at which it would be flagged.
        mislabeled: Whether it is flagged at the configured rate.
        influence: Sum over its occurrences: of removing it everywhere, to first order.
        content: SHA-256 of its pixels.
    """

    rank: int
    instance_id: str
    label: str
    suggested_label: str
    occurrences: int
    flagged: int
    mislabel_score: float
    q_value: float
    mislabeled: bool
    influence: float
    content: str


Row = TypeVar("Row", TaskRow, InstanceRow, ItemRow)


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
    columns = [field.name for field in fields(kind)]
    parsers = [_parser(str(field.type)) for field in fields(kind)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, strict=True)
            found = next(reader, None)
            if found != columns:
                raise RunError(path, f"has columns {found}", f"{columns}")
            return [
                kind(*[parse(text) for parse, text in zip(parsers, line, strict=True)])
                for line in reader
                if line
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
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else value


def _parser(kind: str) -> Callable[[str], Any]:
    """Reads a cell of a column."""
    read = _PARSERS[kind.removesuffix(" | None")]
    return read if not kind.endswith(" | None") else lambda text: read(text) if text else None


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


_PARSERS: dict[str, Callable[[str], Any]] = {
    "bool": _boolean,
    "int": int,
    "float": float,
    "str": str,
}
