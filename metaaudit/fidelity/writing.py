"""The results of an evaluation as files and on a terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from metaaudit.fidelity.figures import draw
from metaaudit.fidelity.results import Figure, Result, Table, Value
from metaaudit.printable import printable
from metaaudit.reports.markdown import escape
from metaaudit.reports.text import number
from metaaudit.runs.atomic import write_json, write_text

SCHEMA_VERSION = 1
JSON = "evaluation.json"
MARKDOWN = "evaluation.md"
INCOMPLETE = "Not complete: the time was up. The same command goes on, into a new folder."
MAX_ROWS = 50
"""Of a table in Markdown; its CSV has all."""
SHOWN_ROWS = 20
SHOWN_COLUMNS = 12
"""Of a table on a terminal: wider ones are in files alone."""
NAME_WIDTH = 24


def write_evaluation(folder: Path, results: Sequence[Result], facts: dict[str, Any]) -> None:
    """Writes JSON, Markdown, a CSV a table, and an SVG and a PNG a figure.

    Args:
        folder: An existing folder.
        results: Of the experiments.
        facts: What else the JSON tells: configuration, inputs, versions. Their warnings are in the
            Markdown as well.
    """
    results = named_apart(results)
    for result in results:
        for table in result.tables:
            write_text(folder / f"{table.name}.csv", table_csv(table))
        for figure in result.figures:
            draw(figure, folder)
    whole = {"schema_version": SCHEMA_VERSION, "complete": all(one.complete for one in results)}
    write_json(folder / JSON, _finite({**whole, **facts, "results": [*map(_plain, results)]}))
    write_text(folder / MARKDOWN, markdown(results, facts.get("warnings", ())))


def print_results(results: Sequence[Result], console: Console) -> None:
    """Prints every table, and the notes."""
    for result in results:
        console.print(Text(printable(result.title), style="bold"))
        for table in result.tables:
            if len(table.columns) <= SHOWN_COLUMNS:
                console.print(_for_terminal(table))
            else:
                console.print(Text(printable(f"{table.title}: {table.name}.csv")))
        for note in result.notes:
            console.print(Text(printable(note)))
        if not result.complete:
            console.print(Text(INCOMPLETE, style="bold yellow"))


def named_apart(results: Sequence[Result]) -> list[Result]:
    """Results whose tables and figures have file names of their own.

    The second experiment of a kind has ``-2`` after them.
    """
    taken: dict[str, int] = {}

    def free(name: str) -> str:
        taken[name] = taken.get(name, 0) + 1
        return name if taken[name] == 1 else free(f"{name}-{taken[name]}")

    found = []
    for result in results:
        tables = tuple(replace(table, name=free(table.name)) for table in result.tables)
        # A figure may be called as a table is: their files end differently.
        figures = tuple(
            replace(figure, name=free(f"{figure.name}.svg").replace(".svg", ""))
            for figure in result.figures
        )
        found.append(replace(result, tables=tables, figures=figures))
    return found


def table_csv(table: Table) -> str:
    """A table as CSV, numbers with all their digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([["" if _missing(v) else v for v in row] for row in table.rows])
    return out.getvalue()


def markdown(results: Sequence[Result], warnings: Sequence[str] = ()) -> str:
    """All warnings, tables, figures and notes."""
    blocks = [block for result in results for block in _blocks(result)]
    if warnings:
        lines = "\n".join(f"- {escape(line)}" for line in warnings)
        blocks = ["## Warnings", lines, *blocks]
    return "\n\n".join(["# metaaudit: evaluation", *blocks]) + "\n"


def _blocks(result: Result) -> Iterator[str]:
    yield f"## {escape(result.title)}"
    if not result.complete:
        yield f"**{INCOMPLETE}**"
    for table in result.tables:
        yield f"### {escape(table.title)}"
        yield _markdown_table(table)
        if len(table.rows) > MAX_ROWS:
            file = f"{table.name}.csv"
            yield f"{MAX_ROWS} of {len(table.rows):,} rows; [{file}]({file}) has all."
    for figure in (one for one in result.figures if one.series):
        yield f"![{escape(figure.title)}]({figure.name}.svg)"
    if result.notes:
        yield "\n".join(f"- {escape(note)}" for note in result.notes)


def _markdown_table(table: Table) -> str:
    header = [escape(name) for name in table.columns]
    numeric = [_numeric(table, column) for column in range(len(header))]
    rule = ["---:" if right else "---" for right in numeric]
    rows = [[escape(_text(value)) for value in row] for row in table.rows[:MAX_ROWS]]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def _for_terminal(table: Table) -> TerminalTable:
    shown = TerminalTable(
        title=Text(printable(table.title)), title_justify="left", header_style="bold"
    )
    for column, name in enumerate(table.columns):
        numeric = _numeric(table, column)
        shown.add_column(
            Text(printable(name)),
            justify="right" if numeric else "left",
            overflow="fold",
            min_width=_width(table, column, numeric),
        )
    for row in table.rows[:SHOWN_ROWS]:
        shown.add_row(*(Text(printable(_text(value))) for value in row))
    rest = len(table.rows) - SHOWN_ROWS
    if rest > 0:
        shown.caption = f"and {rest:,} more rows in {table.name}.csv"
    return shown


def _width(table: Table, column: int, numeric: bool) -> int:
    """Room for what is there: no number is ever cut, and a name only where it is long."""
    longest = max((len(_text(row[column])) for row in table.rows), default=0)
    return longest if numeric else min(longest, NAME_WIDTH)


def _numeric(table: Table, column: int) -> bool:
    values = [row[column] for row in table.rows if row[column] is not None]
    return bool(values) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
    )


def _text(value: Value) -> str:
    if _missing(value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return str(value)


def _missing(value: Value) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _plain(result: Result) -> dict[str, Any]:
    return {
        "kind": result.kind,
        "title": result.title,
        "complete": result.complete,
        "notes": list(result.notes),
        "tables": [
            {"name": t.name, "title": t.title, "columns": list(t.columns), "rows": t.rows}
            for t in result.tables
        ],
        "figures": [_plain_figure(figure) for figure in result.figures],
        "details": result.details,
    }


def _plain_figure(figure: Figure) -> dict[str, Any]:
    series = [{"name": s.name, "x": s.x, "y": s.y, "error": s.error} for s in figure.series]
    return {**vars(figure), "series": series}


def _finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON has not: ``None`` in their place."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value
