"""``metaaudit baseline`` and ``metaaudit suppress``: findings that a gate lets pass."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Annotated, Optional

import typer

from metaaudit.console import results
from metaaudit.errors import UsageError
from metaaudit.options import RunArgument

SUPPRESSIONS = Path("metaaudit-suppressions.yaml")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The baseline.")]

app = typer.Typer(no_args_is_help=True, help="Known findings, which pass a gate.")


@app.command()
def create(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="New file for the baseline.")],
) -> None:
    """Write all findings of a run into a new baseline."""
    from metaaudit.gates import create_baseline, saved_gate, write_baseline
    from metaaudit.runs.saved import SavedRun

    if out.exists() or out.is_symlink():
        raise UsageError(
            out, "exists already", "a new file", "`metaaudit baseline update` changes one"
        )
    saved = SavedRun.open(run)
    baseline = create_baseline(saved, saved_gate(saved))
    write_baseline(out, baseline)
    counts = Counter({entry.rule: 0 for entry in baseline.entries})
    for entry in baseline.entries:
        counts[entry.rule] += entry.count
    by_rule = ", ".join(f"{count} {rule}" for rule, count in counts.items())
    _print(f"{out}: {by_rule or 'no findings'}")


@app.command()
def update(run: RunArgument, file: FileArgument) -> None:
    """Add the findings of a run to a baseline, and take out what is no longer found."""
    from metaaudit.gates import read_baseline, saved_gate, update_baseline, write_baseline
    from metaaudit.runs.saved import SavedRun

    saved = SavedRun.open(run)
    old = read_baseline(file)
    new = update_baseline(old, saved, saved_gate(saved))
    write_baseline(file, new)
    before, after = ({entry.key for entry in baseline.entries} for baseline in (old, new))
    _print(
        f"{file}: {len(after - before)} added, {len(before - after)} removed, "
        f"{len(before & after)} kept"
    )


@app.command()
def diff(run: RunArgument, file: FileArgument) -> None:
    """Show what of a run is new, what is known, and what of the baseline is no longer found."""
    from metaaudit.gates import compare_baseline, read_baseline, saved_gate
    from metaaudit.runs.saved import SavedRun

    saved = SavedRun.open(run)
    found = compare_baseline(read_baseline(file), saved, saved_gate(saved))
    for status, findings in (("new", found.new), ("known", found.known)):
        for finding in findings:
            _print(_line(status, finding.rule, finding.fingerprint, finding.message))
    for entry in found.stale:
        _print(_line("stale", entry.rule, entry.fingerprint, entry.message))
    _print(f"{len(found.new)} new, {len(found.known)} known, {len(found.stale)} stale")


def suppress(
    run: RunArgument,
    findings: Annotated[
        list[str],
        typer.Argument(
            metavar="FINDING...", help="Its fingerprint, 8 digits or more, or what it flags."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why it may pass.")],
    expires: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="Last day on which it may.")],
    rule: Annotated[
        Optional[str],  # noqa: UP045  (typer reads it at run time)
        typer.Option(help="Only findings of this rule."),
    ] = None,
    file: Annotated[
        Path, typer.Option(metavar="FILE", help="Where it is written; made if need be.")
    ] = SUPPRESSIONS,
) -> None:
    """Let findings of a run pass until a day, for a reason that is written down."""
    from metaaudit.findings.naming import known_rule
    from metaaudit.gates import Suppression, add_suppressions, described, select
    from metaaudit.runs.saved import SavedRun, check_output

    if not reason.strip():
        raise UsageError("--reason", "is empty", "why the finding may pass")
    until = _future(expires)
    named = known_rule(rule, "--rule") if rule is not None else None
    check_output(run, file)
    chosen = select(SavedRun.open(run), findings, named)
    new = [
        Suppression.model_validate(
            {
                "fingerprint": one.fingerprint,
                "rule": one.rule,
                "reason": reason.strip(),
                "expires": until.isoformat(),
                "subject": one.subject,
            }
        )
        for one in chosen
    ]
    add_suppressions(file, new)
    for one in chosen:
        _print(f"{file}: {described(one)} until {until}")


def _future(text: str) -> datetime.date:
    from metaaudit.gates import parse_date

    try:
        day = parse_date(text)
    except ValueError as error:
        raise UsageError("--expires", str(error)) from None
    if day <= datetime.date.today():
        raise UsageError("--expires", f"{text} is not in the future", "a later day")
    return day


def _line(status: str, rule: str, fingerprint: str, message: str) -> str:
    from metaaudit.gates.selecting import SHORT

    return f"{status}: {rule}: {message} ({fingerprint[:SHORT]})"


def _print(line: str) -> None:
    from metaaudit.printable import printable

    results().print(printable(line), markup=False, emoji=False, soft_wrap=True)
