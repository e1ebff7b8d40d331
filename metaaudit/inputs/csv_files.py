"""Rows of CSV files, each with its place for messages."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from metaaudit.errors import TaskSetError


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Reads some columns of a file, in the order of its rows.

    Args:
        path: The file, in UTF-8, with the names of its columns in the first row.
        columns: The columns to read.

    Yields:
        ``FILE:LINE`` and the row's value in each of the columns.

    Raises:
        TaskSetError: The file cannot be read, lacks a column or any row, or a value is empty.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _rows(path, stream, columns)
    except OSError as error:
        raise TaskSetError(
            path, f"cannot be read ({error.strerror})", "a CSV file", "check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise TaskSetError(path, f"is not text ({error.reason})", "CSV in UTF-8") from None
    except csv.Error as error:
        raise TaskSetError(path, f"is no readable CSV ({error})", "CSV in UTF-8") from None


def _rows(
    path: Path, stream: Iterable[str], columns: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader(stream, strict=True)
    header = next(reader, [])
    for name in columns:
        if header.count(name) != 1:
            what = f"has the columns {', '.join(header)}" if header else "is empty"
            raise TaskSetError(f"{path}:1", what, f"the columns {', '.join(columns)}, each once")
    places = [header.index(name) for name in columns]
    found = False
    for row in reader:
        if not row:  # an empty line
            continue
        where, found = f"{path}:{reader.line_num}", True
        values = [row[place].strip() for place in places if place < len(row)]
        if len(values) < len(columns) or not all(values):
            raise TaskSetError(where, f"lacks a value for {' or '.join(columns)}", "one for each")
        yield where, values
    if not found:
        raise TaskSetError(path, "has no rows", f"rows of {', '.join(columns)}")
