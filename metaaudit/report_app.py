"""``metaaudit report`` and ``metaaudit explain``, and how a gate ends a command."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from metaaudit.console import Messages, results
from metaaudit.options import RunArgument

if TYPE_CHECKING:
    from metaaudit.config.gate import GateConfig
    from metaaudit.gates import Outcome
    from metaaudit.runs.saved import SavedRun

FAILED = 1

FailOnOption = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads it at run time)
    typer.Option(
        metavar="RULE,...",
        help="Exit with 1 on new findings of these rules alone; `none`: of no rule.",
    ),
]
BaselineOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE", help="Known findings, which pass; instead of gate.baseline."),
]
SuppressionsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE", help="Suppressed findings; instead of gate.suppressions."),
]


def report(
    run: RunArgument,
    formats: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "-f",
            "--format",
            metavar="FORMAT=FILE",
            help="html, md, json, csv, parquet, junit, sarif or github.",
        ),
    ] = None,
    compare: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="OTHER_RUN", help="Show what differs from another run."),
    ] = None,
    fail_on: FailOnOption = None,
    baseline: BaselineOption = None,
    suppressions: SuppressionsOption = None,
) -> None:
    """Render saved scores; without a format, as tables on the terminal. Exit 1 if a gate fails."""
    from metaaudit import reports
    from metaaudit.errors import RunError
    from metaaudit.gates import chosen_gate, saved_gate
    from metaaudit.runs.atomic import is_stream, resolved
    from metaaudit.runs.saved import SavedRun, check_no_input, check_output

    wanted = [reports.parse_format(text) for text in formats or []]
    paths = [path for _, path in wanted if path is not None]
    files = [resolved(path) for path in paths if not is_stream(path)]
    for path in paths:
        check_output(run, path)
        if files.count(resolved(path)) > 1:
            raise RunError(path, "is named twice", "a file for each report", "name another")
    saved = SavedRun.open(run)
    for path in paths:
        check_no_input(saved, path)
    outcome = judged(saved, chosen_gate(saved_gate(saved), fail_on or (), baseline, suppressions))
    compared = reports.compare(saved, SavedRun.open(compare)) if compare else None
    rendered = [reports.render(saved, fmt, outcome, compared) for fmt, _ in wanted]
    aside = any(map(is_stream, paths))
    for (_, to), content in zip(wanted, rendered, strict=True):
        _write(to, content, aside=aside)
    if None in [to for _, to in wanted]:
        reports.append_summary(saved, outcome, compared, os.environ)
    if not wanted:
        reports.print_tables(saved, results())
        if compared:
            reports.print_comparison(compared, results())
    conclude(outcome, aside=aside)


def explain(
    rule: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="[RULE]", help="Such as harmful, or choosing; all in short by default."
        ),
    ] = None,
) -> None:
    """Say what a rule means and what to do about it, or how scores are to be chosen."""
    from metaaudit.findings.explain import explained, overview

    text = overview() if rule is None else explained(rule)
    typer.echo(text, nl=False)


def judged(run: SavedRun, gate: GateConfig) -> Outcome | None:
    """What a gate makes of a run; none where no rule has one.

    Raises:
        UsageError: A file of the gate is missing or damaged.
    """
    from metaaudit.gates import judge, rule_gates

    return judge(run, gate, datetime.date.today()) if rule_gates(gate) else None


def conclude(outcome: Outcome | None, *, aside: bool = False) -> None:
    """Prints what a gate decided.

    Args:
        outcome: What it decided; nothing is done without.
        aside: To stderr, where stdout may hold a report.

    Raises:
        Exit: With code 1, if the gate failed.
    """
    if outcome is None:
        return
    from metaaudit.gates import outcome_lines
    from metaaudit.printable import printable

    console = Messages().console if aside else results()
    for line in outcome_lines(outcome):
        console.print(printable(line), markup=False, emoji=False, soft_wrap=True)
    if outcome.failed:
        raise typer.Exit(FAILED)


def _write(path: Path | None, content: str | bytes, *, aside: bool) -> None:
    """Writes a report and tells where, or prints it where no file is named.

    Args:
        path: The file.
        content: The report.
        aside: Tell it on stderr, where stdout may hold a report.
    """
    from metaaudit.runs.atomic import is_stream, write_bytes

    if path is None:
        typer.echo(content, nl=False)
        return
    write_bytes(path, content.encode() if isinstance(content, str) else content)
    if not is_stream(path):
        console = Messages().console if aside else results()
        console.print(str(path), markup=False, soft_wrap=True)
