"""The baseline: a file of findings that are known, and how a run compares with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metaaudit.config.gate import GateConfig
from metaaudit.errors import RunError
from metaaudit.findings import RULES, Finding, RuleName
from metaaudit.gates.rates import Key, key_of, rule_gates, within
from metaaudit.runs.atomic import write_json
from metaaudit.runs.saved import SavedRun

SCHEMA_VERSION = 1


class Entry(BaseModel):
    """A known finding.

    Attributes:
        rule: The rule.
        fingerprint: Of the finding.
        count: How many findings have this rule and fingerprint, as repeated tasks do.
        subject: Id of the task or instance when it became known.
        message: Of the finding at that time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rule: RuleName
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    count: int = Field(ge=1)
    subject: str
    message: str

    @property
    def key(self) -> Key:
        """Rule and fingerprint."""
        return self.rule, self.fingerprint


class Baseline(BaseModel):
    """A whole file of known findings.

    Attributes:
        schema_version: Of the file.
        entries: By rule, subject and fingerprint; no two have the same rule and fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    entries: tuple[Entry, ...] = ()

    @model_validator(mode="after")
    def _no_entry_twice(self) -> Baseline:
        for (rule, fingerprint), count in Counter(entry.key for entry in self.entries).items():
            if count > 1:
                raise ValueError(f"{rule} {fingerprint[:12]} is there {count} times")
        return self

    def known(self, findings: Iterable[Finding]) -> list[bool]:
        """Whether each finding is known; an entry covers as many as it counts, the first ones."""
        left = {entry.key: entry.count for entry in self.entries}
        result = []
        for key in map(key_of, findings):
            result.append(left.get(key, 0) > 0)
            left[key] = left.get(key, 0) - 1
        return result

    def stale(self, findings: Iterable[Finding], release: float) -> tuple[Entry, ...]:
        """The entries without any finding up to that q-value."""
        there = {
            key_of(finding) for finding in findings if finding.flagged or within(finding, release)
        }
        return tuple(entry for entry in self.entries if entry.key not in there)


@dataclass(frozen=True)
class Difference:
    """What of a run is in a baseline.

    Attributes:
        new: Findings that are not, the worst first by rule.
        known: Findings that are.
        stale: Entries that are no longer found.
    """

    new: tuple[Finding, ...]
    known: tuple[Finding, ...]
    stale: tuple[Entry, ...]


def read_baseline(path: Path) -> Baseline:
    """Reads a baseline.

    Raises:
        RunError: It is missing, damaged or of another schema version.
    """
    create = "`metaaudit baseline create RUN --out FILE` writes one"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RunError(
            path, f"cannot be read ({error.strerror})", "a baseline of findings", create
        ) from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(path, f"is damaged ({error})", "a baseline of findings", create) from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version is None:
        raise RunError(path, "is no baseline of findings", "a schema_version and entries", create)
    if version != SCHEMA_VERSION:
        raise RunError(path, f"has schema version {version}", f"{SCHEMA_VERSION}", create)
    try:
        return Baseline.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        what = f"{place}: {problem}" if place else problem
        raise RunError(path, f"is damaged ({what})", "a baseline of findings", create) from None


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Writes a baseline; the same one gives the same bytes.

    Raises:
        RunError: It cannot be written.
    """
    write_json(path, baseline.model_dump(mode="json"))


def create_baseline(run: SavedRun, gate: GateConfig) -> Baseline:
    """All findings of a run that are flagged, or that count for the gate of their rule."""
    return _sorted(_entries(counted(run, gate)).values())


def update_baseline(old: Baseline, run: SavedRun, gate: GateConfig) -> Baseline:
    """The findings of a run, and what was known and is still below the rate of release.

    What was known before keeps its words, so that a file under version control changes little.
    """
    entries = _entries(counted(run, gate))
    released = _entries(
        finding for finding in run.findings.findings if within(finding, gate.release)
    )
    for known in old.entries:
        if known.key not in entries and known.key not in released:
            continue
        fresh = entries[known.key].count if known.key in entries else 0
        still = released[known.key].count if known.key in released else 0
        count = max(fresh, min(known.count, still))
        entries[known.key] = known.model_copy(update={"count": count})
    return _sorted(entries.values())


def compare_baseline(baseline: Baseline, run: SavedRun, gate: GateConfig) -> Difference:
    """What is new in a run, what is known, and what of the baseline is no longer found."""
    findings = counted(run, gate)
    known = baseline.known(findings)
    return Difference(
        new=tuple(one for one, is_known in zip(findings, known, strict=True) if not is_known),
        known=tuple(one for one, is_known in zip(findings, known, strict=True) if is_known),
        stale=baseline.stale(run.findings.findings, gate.release),
    )


def counted(run: SavedRun, gate: GateConfig) -> list[Finding]:
    """The findings that are flagged, or that count for the gate of their rule."""
    gates = rule_gates(gate)
    return [
        finding
        for finding in run.findings.findings
        if finding.flagged or (finding.rule in gates and within(finding, gates[finding.rule].fdr))
    ]


def _entries(findings: Iterable[Finding]) -> dict[Key, Entry]:
    """One entry for each rule and fingerprint, in the words of the worst."""
    entries: dict[Key, Entry] = {}
    for finding in findings:
        key = key_of(finding)
        count = entries[key].count + 1 if key in entries else 1
        worst = entries.get(key, finding)
        entries[key] = Entry(
            rule=finding.rule,
            fingerprint=finding.fingerprint,
            count=count,
            subject=worst.subject,
            message=worst.message,
        )
    return entries


def _sorted(entries: Iterable[Entry]) -> Baseline:
    ordered = sorted(
        entries, key=lambda entry: (RULES.index(entry.rule), entry.subject, entry.fingerprint)
    )
    return Baseline(entries=tuple(ordered))
