"""Findings as a person names them: by the start of a fingerprint or by the id of what it flags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from metaaudit.errors import RunError
from metaaudit.findings import Finding, RuleName
from metaaudit.gates.rates import Key, key_of
from metaaudit.runs.saved import SavedRun

SHORT = 12
"""Digits of a fingerprint that are shown."""
_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_MOST_SHOWN = 5


def select(run: SavedRun, names: Sequence[str], rule: RuleName | None = None) -> list[Finding]:
    """The findings that are named, borderline ones too, each once.

    Args:
        run: A finished run.
        names: First 8 or more digits of a fingerprint each, or the id of a task or instance.
        rule: Of this rule only.

    Raises:
        RunError: A name fits no finding, or several; the message says what was found.
    """
    found: dict[Key, Finding] = {}
    for name in names:
        finding = _only(run, name, rule)
        found.setdefault(key_of(finding), finding)
    return list(found.values())


def described(finding: Finding) -> str:
    """Rule, subject and the start of the fingerprint."""
    return f"{finding.rule} {finding.subject!r} ({finding.fingerprint[:SHORT]})"


def _only(run: SavedRun, name: str, rule: RuleName | None) -> Finding:
    within = run.findings.findings if rule is None else run.findings.of(rule)
    matches: dict[Key, Finding] = {}
    for finding in within:
        if _fits(finding, name):
            matches.setdefault(key_of(finding), finding)
    if len(matches) == 1:
        return next(iter(matches.values()))
    if not matches:
        raise _unknown(name, within, rule)
    shown = [described(finding) for finding in matches.values()][:_MOST_SHOWN]
    more = f" and {len(matches) - len(shown)} more" if len(matches) > len(shown) else ""
    raise RunError(
        f"finding {name!r}",
        f"fits {len(matches)}: {', '.join(shown)}{more}",
        "one finding",
        "give more digits of its fingerprint, or --rule",
    )


def _fits(finding: Finding, name: str) -> bool:
    if finding.subject == name:
        return True
    return bool(_PREFIX.fullmatch(name)) and finding.fingerprint.startswith(name)


def _unknown(name: str, within: Sequence[Finding], rule: RuleName | None) -> RunError:
    subjects = sorted({finding.subject for finding in within})
    close = difflib.get_close_matches(name, subjects, n=3)
    kind = f"{rule} findings" if rule else "findings"
    return RunError(
        f"finding {name!r}",
        f"is none of the run's {len(within)} {kind}",
        "8 or more digits of a fingerprint, or the id of a task or instance",
        f"did you mean {' or '.join(map(repr, close))}?" if close else "",
    )
