"""A short report in GitHub-flavoured Markdown, for pull requests and job summaries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from metaaudit.findings import BY_NAME, RULES
from metaaudit.gates import Outcome, Status
from metaaudit.printable import printable
from metaaudit.reports.comparison import Comparison, sentences
from metaaudit.reports.headline import gate_line, headline, notes, run_name, warnings
from metaaudit.reports.text import number, percent, q_value, score, signed, z_score
from metaaudit.reports.verdicts import Verdict, verdicts
from metaaudit.runs.saved import SavedRun

TOP = 20
MAX_EVIDENCE = 5

# Entities cannot act as markup, so they stand for whatever could end a cell, open a tag, mention
# a user or become a link; a backslash is enough for the rest.
_ESCAPES = {ord(char): f"&#{ord(char)};" for char in "&<>|`\\@"} | {
    ord(char): f"\\{char}" for char in "*_[]#~$!"
}
_AUTOLINK = re.compile(r"(?i)\bwww\.|://")


def render_markdown(
    run: SavedRun, outcome: Outcome | None = None, comparison: Comparison | None = None
) -> str:
    """What the gate says, the findings, the comparison, and the worst tasks and instances."""
    blocks = [
        f"# metaaudit: {escape(run_name(run))}",
        *([] if outcome is None else _gate(outcome)),
        f"**{headline(run)}**",
        *(f"> **Warning:** {escape(text)}" for text in warnings(run)),
        run.findings.sign,
        *_findings(run, outcome),
        *([] if comparison is None else _comparison(comparison)),
        *_tasks(run),
        *_instances(run),
        "Influence says what hurts, the mislabel score what is wrongly labelled: they are "
        "different signals. A ranking always has a top; only what is marked is a finding.",
        *notes(run),
        f"Mean evaluation loss {number(run.manifest['evaluation']['mean_loss'])}, "
        f"accuracy {percent(run.manifest['evaluation']['mean_accuracy'])}; "
        f"metaaudit {escape(run.manifest['metaaudit_version'])}.",
    ]
    return "\n\n".join(blocks) + "\n"


def _gate(outcome: Outcome) -> Iterator[str]:
    yield f"**{gate_line(outcome)}**"
    statuses: tuple[Status, ...] = ("new", "known", "suppressed", "borderline")
    if outcome.rules:
        yield _table(
            ["rule", *statuses, "limit", "gate"],
            (
                [
                    rule.rule,
                    *(f"{sum(one.status == kind for one in rule.judged):,}" for kind in statuses),
                    f"{rule.limit:,}",
                    "**failed**" if rule.failed else "passed",
                ]
                for rule in outcome.rules
            ),
        )
    if outcome.stale or outcome.notes:
        yield _list([escape(line) for line in (*outcome.notes, *outcome.stale)])


def _findings(run: SavedRun, outcome: Outcome | None) -> Iterator[str]:
    yield "## Findings"
    judged = verdicts(run, outcome)
    if not judged:
        yield "None."
    for rule in RULES:
        of_rule = [one for one in judged if one.finding.rule == rule]
        if of_rule:
            flagged = sum(one.finding.flagged for one in of_rule)
            yield (
                f"### `{rule}`: the {BY_NAME[rule].subject} {BY_NAME[rule].title} "
                f"({flagged:,} flagged, {len(of_rule) - flagged:,} borderline)"
            )
            yield _list([_verdict(one) for one in of_rule])


def _verdict(one: Verdict) -> str:
    q = q_value(one.finding.q_value)
    status = "**new, fails the gate**" if one.fails else one.status
    told = [*([f"q {q}"] if q else []), *([status] if status else [])]
    told += [escape(one.reason)] if one.reason else []
    lines = [escape(one.finding.message) + (f" ({'; '.join(told)})" if told else "")]
    return "\n  - ".join([*lines, *map(escape, one.finding.evidence[:MAX_EVIDENCE])])


def _comparison(comparison: Comparison) -> Iterator[str]:
    yield f"## Comparison with {escape(comparison.other)}"
    yield " ".join(escape(sentence) for sentence in sentences(comparison))
    for title, found in (("Appeared", comparison.appeared), ("Vanished", comparison.vanished)):
        if found:
            yield f"### {title} ({len(found):,})"
            yield _list([f"`{one.rule}`: {escape(one.message)}" for one in found])
    if comparison.settings:
        yield f"### Settings that differ ({len(comparison.settings):,})"
        yield _table(
            ["setting", "here", "there"],
            ([escape(cell) for cell in setting] for setting in comparison.settings[:TOP]),
        )


def _tasks(run: SavedRun) -> Iterator[str]:
    yield f"## Worst tasks ({_shown(len(run.tasks), 'tasks.csv')})"
    yield _table(
        ["rank", "task", "harmful", "kinds", "influence", "robust z", "q", "label noise"],
        (
            [
                str(row.rank),
                escape(row.task_id),
                _yes(row.harmful),
                escape(row.kinds),
                signed(row.influence),
                z_score(row.influence_z),
                q_value(row.harmful_q),
                percent(row.label_noise),
            ]
            for row in run.tasks[:TOP]
        ),
    )


def _instances(run: SavedRun) -> Iterator[str]:
    yield f"## Most suspicious instances ({_shown(len(run.instances), 'instances.csv')})"
    yield _table(
        ["rank", "instance", "task", "place", "label", "mislabeled", "score", "q", "influence"],
        (
            [
                str(row.rank),
                escape(row.instance_id),
                escape(row.task_id),
                f"{escape(row.set)} {row.index}",
                f"{row.label} → {row.suggested_label}",
                _yes(row.mislabeled),
                score(row.mislabel_score),
                q_value(row.q_value),
                signed(row.influence),
            ]
            for row in run.instances[:TOP]
        ),
    )


def escape(text: str) -> str:
    r"""Makes text safe in a Markdown table cell.

    >>> escape("a|b <i> [x]")
    'a&#124;b &#60;i&#62; \\[x\\]'
    """
    return _AUTOLINK.sub(_unlinked, printable(text).translate(_ESCAPES))


def _unlinked(match: re.Match[str]) -> str:
    return match[0].replace(":", "&#58;").replace(".", "&#46;")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Sequence[str]) -> str:
    rest = len(lines) - TOP
    shown = [*lines[:TOP], *([f"and {rest:,} more"] if rest > 0 else [])]
    return "\n".join(f"- {line}" for line in shown)


def _shown(total: int, file: str) -> str:
    return f"{min(TOP, total):,} of {total:,}; {file} has all"


def _yes(flag: bool) -> str:
    return "**yes**" if flag else ""
