"""The report formats by name, and what the command line says of them."""

from __future__ import annotations

import difflib
from pathlib import Path

from metaaudit.errors import RunError
from metaaudit.reports.flat_csv import render_csv
from metaaudit.reports.json_report import render_json
from metaaudit.reports.markdown import render_markdown
from metaaudit.runs.saved import SavedRun

FORMATS = ("html", "md", "json", "csv")


def render(run: SavedRun, fmt: str) -> str:
    """Renders a run as the text of one report file.

    The same run folder gives the same text.

    Args:
        run: A finished run.
        fmt: One of ``FORMATS``.

    Raises:
        RunError: The format is unknown, or a file of the run is damaged.
    """
    if fmt == "html":
        # Only this format needs matplotlib and jinja2, which take a while to import.
        from metaaudit.reports.html import render_html

        return render_html(run)
    renderers = {"md": render_markdown, "json": render_json, "csv": render_csv}
    return renderers[_known(fmt)](run)


def parse_format(text: str) -> tuple[str, Path]:
    """Reads a ``--format`` value such as ``html=report.html``.

    Returns:
        The format, one of ``FORMATS``, and the file to write.

    Raises:
        RunError: The format is unknown, or no file is named.
    """
    name, _, file = text.partition("=")
    fmt = _known(name)
    if not file:
        raise RunError(f"format {text!r}", "names no file", f"{fmt}=FILE")
    return fmt, Path(file)


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
