"""The worst of both rankings, for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaaudit.reports.headline import headline, warnings
from metaaudit.reports.text import percent, printable, score, signed, z_score
from metaaudit.runs.saved import SIGN, SavedRun


def print_tables(run: SavedRun, console: Console, top: int = 10) -> None:
    """Prints the worst tasks, the most suspicious instances, the headline and the warnings.

    Args:
        run: A finished run.
        console: Where to print.
        top: Rows of each table.
    """
    console.print(_tasks(run, top))
    console.print(_instances(run, top))
    console.print(Text(headline(run), style="bold"))
    console.print(Text(SIGN, style="dim"))
    for text in warnings(run):
        console.print(Text.assemble(("warning: ", "bold yellow"), printable(text)))


def _tasks(run: SavedRun, top: int) -> Table:
    table = _table("Worst tasks", ["rank", "task"], ["influence", "robust z", "label noise"])
    table.add_column("flag")
    for row in run.tasks[:top]:
        table.add_row(
            str(row.rank),
            _id(row.task_id),
            signed(row.influence),
            z_score(row.influence_z),
            percent(row.label_noise),
            "harmful" if row.harmful else "",
            style="red" if row.harmful else None,
        )
    return table


def _instances(run: SavedRun, top: int) -> Table:
    table = _table(
        "Most suspicious instances",
        ["rank", "instance", "task", "place", "label"],
        ["score", "influence"],
    )
    table.add_column("flag")
    for row in run.instances[:top]:
        table.add_row(
            str(row.rank),
            _id(row.instance_id),
            _id(row.task_id),
            _id(f"{row.set} {row.index}"),
            f"{row.label} → {row.suggested_label}",
            score(row.mislabel_score),
            signed(row.influence),
            "mislabeled" if row.mislabeled else "",
            style="red" if row.mislabeled else None,
        )
    return table


def _table(title: str, texts: list[str], numbers: list[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in texts:
        table.add_column(name, overflow="fold", justify="right" if name == "rank" else "left")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _id(text: str) -> Text:
    # A Text is never read as rich markup, unlike a str.
    return Text(printable(text))
