"""The worst of both rankings and the number of findings, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaaudit.findings import BY_NAME, RULES, Finding
from metaaudit.printable import printable
from metaaudit.reports.comparison import Comparison, sentences
from metaaudit.reports.headline import headline, warnings
from metaaudit.reports.text import percent, q_value, score, signed, z_score
from metaaudit.runs.saved import SavedRun

TOP_CHANGES = 10


def print_tables(run: SavedRun, console: Console, top: int = 10) -> None:
    """Prints the worst tasks, the most suspicious instances and the findings of each rule.

    After them come the headline and the warnings.

    Args:
        run: A finished run.
        console: Where to print.
        top: Rows of each ranking.
    """
    console.print(_tasks(run, top))
    console.print(_instances(run, top))
    console.print(_findings(run))
    console.print(Text(headline(run), style="bold"))
    console.print(Text(run.findings.sign, style="dim"))
    for text in warnings(run):
        console.print(Text.assemble(("warning: ", "bold yellow"), printable(text)))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Prints what changed from another run: findings, the ranking of tasks and settings.

    Args:
        comparison: Of two runs.
        console: Where to print.
    """
    for title, found in (("Appeared", comparison.appeared), ("Vanished", comparison.vanished)):
        if found:
            console.print(_changed(title, found))
    if comparison.settings:
        table = _table(_title("Settings that differ", comparison.settings), ["setting"], [])
        table.add_column("here", overflow="fold")
        table.add_column("there", overflow="fold")
        for setting in comparison.settings[:TOP_CHANGES]:
            table.add_row(*map(_id, setting))
        console.print(table)
    for sentence in sentences(comparison):
        console.print(_id(sentence))


def _tasks(run: SavedRun, top: int) -> Table:
    table = _table("Worst tasks", ["rank", "task"], ["influence", "robust z", "q", "label noise"])
    table.add_column("flags")
    for row in run.tasks[:top]:
        flags = [*(["harmful"] if row.harmful else []), *row.kinds.split()]
        table.add_row(
            str(row.rank),
            _id(row.task_id),
            signed(row.influence),
            z_score(row.influence_z),
            q_value(row.harmful_q),
            percent(row.label_noise),
            _id(" ".join(flags)),
            style="red" if flags else None,
        )
    return table


def _instances(run: SavedRun, top: int) -> Table:
    table = _table(
        "Most suspicious instances",
        ["rank", "instance", "task", "place", "label"],
        ["score", "q", "influence"],
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
            q_value(row.q_value),
            signed(row.influence),
            "yes" if row.mislabeled else "",
            style="red" if row.mislabeled else None,
        )
    return table


def _findings(run: SavedRun) -> Table:
    table = _table("Findings", ["rule", "what it says"], ["flagged", "borderline"])
    for rule in RULES:
        found = run.findings.of(rule)
        flagged = sum(one.flagged for one in found)
        table.add_row(
            rule,
            f"the {BY_NAME[rule].subject} {BY_NAME[rule].title}",
            f"{flagged:,}",
            f"{len(found) - flagged:,}",
            style="red" if flagged else None,
        )
    return table


def _changed(title: str, found: Sequence[Finding]) -> Table:
    table = _table(_title(title, found), ["rule", "finding"], ["q"])
    for one in found[:TOP_CHANGES]:
        table.add_row(one.rule, _id(one.message), q_value(one.q_value))
    return table


def _title(what: str, everything: Sequence[object]) -> str:
    shown, total = min(TOP_CHANGES, len(everything)), len(everything)
    return f"{what} ({shown:,} of {total:,})"


def _table(title: str, texts: list[str], numbers: list[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in texts:
        table.add_column(name, overflow="fold", justify="right" if name == "rank" else "left")
    for name in numbers:
        # On a narrow terminal ids are folded, but no digit is cut off.
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _id(text: str) -> Text:
    # A Text is never read as rich markup, unlike a str.
    return Text(printable(text))
