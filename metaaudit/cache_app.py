"""``metaaudit cache``: what the factor cache holds, whether it is whole, and how to empty it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated

import typer

from metaaudit.console import Messages, results
from metaaudit.errors import IncompleteError

if TYPE_CHECKING:
    from rich.table import Table

    from metaaudit.cache import CacheFile, Item

SHORT_KEY = 12

app = typer.Typer(no_args_is_help=True, help="List, verify or clear what scoring keeps to reuse.")


@app.command("ls")
def list_entries() -> None:
    """List what the cache holds, last used first."""
    from rich.filesize import decimal

    from metaaudit.cache import cache_folder, cache_limit, items

    folder, limit = cache_folder(), cache_limit()
    found = items(folder)
    rows = [(item, file) for item in found for file in item.files if file.holds_arrays]
    if rows:
        results().print(_table(sorted(rows, key=lambda row: -row[1].used)))
    count = sum(file.kind == "entry" for _, file in rows)
    size = decimal(sum(item.size for item in found))
    most = "no limit" if math.isinf(limit) else f"limit {decimal(int(limit))}"
    _print(f"{count} {'entry' if count == 1 else 'entries'}, {size} ({most}) in {folder}")


@app.command()
def verify() -> None:
    """Check seal, key, completeness and links of every entry; exit 3 if one is damaged.

    Nothing is changed.
    """
    from metaaudit.cache import cache_folder, check_folder

    folder = cache_folder()
    whole = damaged = 0
    for checked in check_folder(folder):
        if checked.fault:
            damaged += 1
            remedy = "remove it, or the next run that needs it computes it again"
            _print(f"damaged: {checked.path.name}: {checked.fault}; {remedy}")
        elif checked.note:
            _print(f"unused: {checked.path.name}: {checked.note}; remove it, or clear the cache")
        else:
            whole += 1
    if damaged:
        raise IncompleteError(folder, f"{damaged} damaged, {whole} whole", "whole entries only")
    _print(f"{whole} whole, none damaged in {folder}")


@app.command()
def clear(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
) -> None:
    """Remove all entries and what damaged or killed runs left, but nothing that is in use."""
    from rich.filesize import decimal

    from metaaudit.cache import cache_folder
    from metaaudit.cache import clear as clear_folder

    folder = cache_folder()
    done = clear_folder(folder, dry_run=dry_run)
    if dry_run:
        for file in done.removed:
            _print(f"would remove {file.path.name} ({decimal(file.size)})")
    for line in done.held:
        Messages().warn(f"{line}; not removed")
    size = decimal(sum(file.size for file in done.removed))
    verb = "would remove" if dry_run else "removed"
    _print(f"{verb} {len(done.removed)} files, {size}, from {folder}")
    if done.failed:
        raise IncompleteError(folder, "; ".join(done.failed), "a folder you may write to")


def _table(rows: list[tuple[Item, CacheFile]]) -> Table:
    from rich.filesize import decimal
    from rich.table import Table

    table = Table(title="Factor cache", title_justify="left", header_style="bold")
    for name in ("arrays", "key"):
        table.add_column(name, no_wrap=True)
    for name in ("size", "computed in"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("last used", "format"):
        table.add_column(name, no_wrap=True)
    for item, file in rows:
        seconds, state = _described(file)
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(file.used))
        table.add_row(item.name, item.key[:SHORT_KEY], decimal(file.size), seconds, used, state)
    return table


def _described(file: CacheFile) -> tuple[str, str]:
    """How long computing it took, as far as known, and its format or why it is never read."""
    from metaaudit.cache import FORMAT, read_header

    if file.kind == "temporary":
        return "", "unfinished"
    try:
        header = read_header(file.path)
    except OSError:  # it may have been removed by now
        return "", "unreadable"
    if file.kind == "damaged" or header is None:
        return "", "damaged"
    seconds = "" if header.seconds is None else f"{header.seconds:.1f} s"
    return seconds, f"{header.format}" if header.format == FORMAT else f"{header.format}, not read"


def _print(line: str) -> None:
    results().print(line, markup=False, soft_wrap=True)
