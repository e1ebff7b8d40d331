"""What an experiment gives: tables, figures and notes, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: Of its file.
        title: One line above it.
        columns: Their names, with the unit where there is one.
        rows: Values in the order of the columns; ``None`` where there is none.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]


@dataclass(frozen=True)
class Series:
    """A line or a group of bars.

    Attributes:
        name: In the legend.
        x: Numbers, or names of bars.
        y: Of the same length.
        error: Standard errors of ``y``, where known.
    """

    name: str
    x: tuple[float, ...] | tuple[str, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Figure:
    """One plot: bars where ``x`` are names, lines where they are numbers.

    Attributes:
        name: Of its file.
        title: Above it.
        x_label: Of the horizontal axis, with the unit.
        y_label: Of the vertical axis, with the unit.
        series: What is drawn.
        levels: Horizontal lines by name, such as a noise ceiling.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    levels: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What one experiment came to.

    Attributes:
        kind: Of the experiment.
        title: What it asks, one line.
        tables: At least one.
        figures: Perhaps none.
        notes: Sentences on what was seen, or what limits it.
        complete: Whether everything that was asked for was done within the time.
        details: Anything else that the JSON holds.
    """

    kind: str
    title: str
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = True
    details: dict[str, Any] = field(default_factory=dict)
