"""A short report in GitHub-flavoured Markdown, for pull requests and job summaries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from metaaudit.reports.headline import headline, notes, run_name, warnings
from metaaudit.reports.text import number, percent, printable, score, signed, z_score
from metaaudit.runs.saved import SIGN, SavedRun

TOP = 20

# Entities cannot act as markup, so they stand for whatever could end a cell, open a tag, mention
# a user or become a link; a backslash is enough for the rest.
_ESCAPES = {ord(char): f"&#{ord(char)};" for char in "&<>|`\\@"} | {
    ord(char): f"\\{char}" for char in "*_[]#~$!"
}
_AUTOLINK = re.compile(r"(?i)\bwww\.|://")


def render_markdown(run: SavedRun) -> str:
    """Headline, warnings and the worst tasks and instances."""
    blocks = [f"# metaaudit: {escape(run_name(run))}", f"**{headline(run)}**"]
    blocks += [f"> **Warning:** {escape(text)}" for text in warnings(run)]
    blocks += [
        SIGN,
        f"## Worst tasks ({_shown(len(run.tasks), 'tasks.csv')})",
        _table(
            ["rank", "task", "harmful", "influence", "robust z", "label noise"],
            (
                [
                    str(row.rank),
                    escape(row.task_id),
                    _yes(row.harmful),
                    signed(row.influence),
                    z_score(row.influence_z),
                    percent(row.label_noise),
                ]
                for row in run.tasks[:TOP]
            ),
        ),
        f"## Most suspicious instances ({_shown(len(run.instances), 'instances.csv')})",
        _table(
            ["rank", "instance", "task", "place", "label", "mislabeled", "score", "influence"],
            (
                [
                    str(row.rank),
                    escape(row.instance_id),
                    escape(row.task_id),
                    f"{escape(row.set)} {row.index}",
                    f"{row.label} → {row.suggested_label}",
                    _yes(row.mislabeled),
                    score(row.mislabel_score),
                    signed(row.influence),
                ]
                for row in run.instances[:TOP]
            ),
        ),
        "Influence says what hurts, the mislabel score what is wrongly labelled: they are "
        "different signals. A ranking always has a top; only what is marked is a finding.",
        *notes(run),
        f"Mean evaluation loss {number(run.manifest['evaluation']['mean_loss'])}, "
        f"accuracy {percent(run.manifest['evaluation']['mean_accuracy'])}; "
        f"metaaudit {escape(run.manifest['metaaudit_version'])}.",
    ]
    return "\n\n".join(blocks) + "\n"


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


def _shown(total: int, file: str) -> str:
    return f"{min(TOP, total):,} of {total:,}; {file} has all"


def _yes(flag: bool) -> str:
    return "**yes**" if flag else ""
