"""The report formats by name, and what the command line says of them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal, overload

from metaaudit.errors import RunError
from metaaudit.gates import Outcome
from metaaudit.reports.comparison import Comparison
from metaaudit.reports.flat_csv import render_csv
from metaaudit.reports.github import render_github
from metaaudit.reports.json_report import render_json
from metaaudit.reports.junit import render_junit
from metaaudit.reports.markdown import render_markdown
from metaaudit.reports.parquet import render_parquet
from metaaudit.reports.sarif import render_sarif
from metaaudit.runs.saved import SavedRun

TextFormat = Literal["html", "md", "json", "csv", "junit", "sarif", "github"]
FORMATS = ("html", "md", "json", "csv", "junit", "sarif", "github", "parquet")
ON_STDOUT = "github"
"""The format that needs no file, since GitHub reads it from the log."""


@overload
def render(
    run: SavedRun,
    fmt: TextFormat,
    outcome: Outcome | None = None,
    comparison: Comparison | None = None,
) -> str: ...
@overload
def render(
    run: SavedRun,
    fmt: str,
    outcome: Outcome | None = None,
    comparison: Comparison | None = None,
) -> str | bytes: ...
def render(
    run: SavedRun,
    fmt: str,
    outcome: Outcome | None = None,
    comparison: Comparison | None = None,
) -> str | bytes:
    """Renders a run as one report file.

    The same run folder gives the same report.

    Args:
        run: A finished run.
        fmt: One of ``FORMATS``.
        outcome: What the gate makes of the findings; the tables ``csv`` and ``parquet`` do without.
        comparison: With another run; told in ``html``, ``md`` and ``json``.

    Returns:
        Text, or bytes for ``parquet``.

    Raises:
        RunError: The format is unknown or needs a package that is not installed, or a file of the
            run is damaged.
    """
    match _known(fmt):
        case "html":
            # Only this format needs matplotlib and jinja2, which take a while to import.
            from metaaudit.reports.html import render_html

            return render_html(run, outcome, comparison)
        case "md":
            return render_markdown(run, outcome, comparison)
        case "json":
            return render_json(run, outcome, comparison)
        case "junit":
            return render_junit(run, outcome)
        case "sarif":
            return render_sarif(run, outcome)
        case "github":
            return render_github(run, outcome)
        case "parquet":
            return render_parquet(run)
        case _:
            return render_csv(run)


def parse_format(text: str) -> tuple[str, Path | None]:
    """Reads a ``--format`` value such as ``html=report.html``.

    Returns:
        The format, one of ``FORMATS``, and the file to write; none for ``github`` alone, which is
        to be printed.

    Raises:
        RunError: The format is unknown, or no file is named.
    """
    name, equals, file = text.partition("=")
    fmt = _known(name)
    if not file and (equals or fmt != ON_STDOUT):
        raise RunError(f"format {text!r}", "names no file", f"{fmt}=FILE")
    return fmt, Path(file) if file else None


def _known(name: str) -> str:
    if name in FORMATS:
        return name
    nearest = difflib.get_close_matches(name.lower(), FORMATS, n=1)
    raise RunError(
        f"format {name!r}",
        "is unknown",
        f"one of {', '.join(FORMATS)}",
        f"did you mean {nearest[0]!r}?" if nearest else "",
    )
