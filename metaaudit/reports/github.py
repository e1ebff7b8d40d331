"""Annotations for GitHub's workflow log, and the report for its job summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from metaaudit.errors import RunError
from metaaudit.findings import BY_NAME, RULES
from metaaudit.gates import Outcome
from metaaudit.printable import printable
from metaaudit.reports.comparison import Comparison
from metaaudit.reports.markdown import render_markdown
from metaaudit.reports.verdicts import Verdict, verdicts
from metaaudit.runs.saved import SavedRun

TOP = 10
"""GitHub shows no more annotations of a kind for one step."""
MAX_SUMMARY_BYTES = 2**20
"""GitHub drops the whole summary of a step where it is larger."""

_CUT = "\n\nThe report goes on, but a job summary can be no larger.\n"


def render_github(run: SavedRun, outcome: Outcome | None = None) -> str:
    """One workflow command a line: the worst open findings of each rule, then how many there are.

    Those that fail the gate come first, as errors; the others are warnings. Known, suppressed and
    borderline findings are left out.
    """
    found = _worst_first([one for one in verdicts(run, outcome) if one.open])
    lines = [_annotation(one) for one in found[:TOP]]
    if len(found) > TOP:
        lines.append(command("notice", "metaaudit findings", f"{len(found) - TOP:,} more"))
    return "".join(f"{line}\n" for line in lines)


def append_summary(
    run: SavedRun,
    outcome: Outcome | None,
    comparison: Comparison | None,
    environ: Mapping[str, str],
) -> None:
    """Adds the Markdown report to the job summary, if there is one.

    Args:
        run: A finished run.
        outcome: What the gate makes of it.
        comparison: With another run.
        environ: The environment, where ``GITHUB_STEP_SUMMARY`` names the file. It may already hold
            something, and stays within 1 MiB.

    Raises:
        RunError: The file cannot be written to.
    """
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    report = f"\n{render_markdown(run, outcome, comparison)}".encode()
    try:
        with Path(name).open("ab") as file:
            file.write(_within(report, MAX_SUMMARY_BYTES - file.tell()))
    except OSError as error:
        raise RunError(
            name,
            f"cannot be written ({error.strerror})",
            "the file of the job summary",
            "unset GITHUB_STEP_SUMMARY or name another",
        ) from None


def _within(report: bytes, room: int) -> bytes:
    """The report, or as many of its whole lines as there is room for beside a note."""
    if len(report) <= room:
        return report
    note = _CUT.encode()
    end = report.rfind(b"\n", 0, max(room - len(note), 0))
    return report[:end] + note if end > 0 else b""


def _worst_first(found: list[Verdict]) -> list[Verdict]:
    """The worst of every rule, then the second of every rule and so on; what fails comes first."""
    places = dict.fromkeys(RULES, 0)
    keyed = []
    for one in found:
        places[one.finding.rule] += 1
        keyed.append((not one.fails, places[one.finding.rule], one))
    return [one for *_, one in sorted(keyed, key=lambda key: key[:2])]


def _annotation(one: Verdict) -> str:
    rule = BY_NAME[one.finding.rule]
    lines = [printable(text) for text in (one.finding.message, *one.finding.evidence)]
    title = f"{rule.name}: the {rule.subject} {rule.title}"
    return command("error" if one.fails else "warning", title, "\n".join(lines))


def command(name: str, title: str, message: str) -> str:
    r"""A workflow command, on one line whatever the texts hold.

    >>> command("notice", "a: b, c", "100%\n::error::")
    '::notice title=a%3A b%2C c::100%25%0A::error::'
    """
    escaped = _escape(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{name} title={escaped}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
