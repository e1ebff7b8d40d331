"""Findings as SARIF 2.1.0, which code scanning shows beside the code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from urllib.parse import quote

from metaaudit.findings import BY_NAME, RULES, Finding, RuleName
from metaaudit.findings.explain import explanation
from metaaudit.gates import Outcome
from metaaudit.printable import printable
from metaaudit.reports.json_report import json_text
from metaaudit.reports.verdicts import Verdict, verdicts
from metaaudit.runs.saved import SavedRun

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
MAX_PLACES = 10
BASE = "%SRCROOT%"


def render_sarif(run: SavedRun, outcome: Outcome | None = None) -> str:
    """One result a finding, in the task files of the run.

    Paths are relative to the current folder where they lie in it, and only names elsewhere. What
    fails the gate is an error, a borderline finding a note, any other a warning. With an
    ``outcome``, each result says whether it is in the baseline and whether it is suppressed.
    """
    artifacts = _Artifacts(_task_files(run))
    results = [_result(one, artifacts, outcome is not None) for one in verdicts(run, outcome)]
    base = {"description": {"text": "The folder that metaaudit was called in."}}
    return json_text(
        {
            "$schema": SCHEMA,
            "version": "2.1.0",
            "runs": [
                {
                    "tool": {"driver": _driver(run)},
                    "originalUriBaseIds": {BASE: base},
                    "results": results,
                }
            ],
        }
    )


def _driver(run: SavedRun) -> dict[str, Any]:
    version = run.manifest["metaaudit_version"]
    return {"name": "metaaudit", "version": version, "rules": [_rule(name) for name in RULES]}


def _rule(name: RuleName) -> dict[str, Any]:
    rule, text = BY_NAME[name], explanation(name)
    return {
        "id": name,
        "shortDescription": {"text": f"The {rule.subject} {rule.title}."},
        "fullDescription": {"text": rule.summary},
        "help": {"text": text, "markdown": text},
        "defaultConfiguration": {"level": "warning"},
    }


def _result(one: Verdict, artifacts: _Artifacts, judged: bool) -> dict[str, Any]:
    finding = one.finding
    level = "note" if one.status == "borderline" else "error" if one.fails else "warning"
    text = "\n".join(printable(line) for line in (finding.message, *finding.evidence))
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": RULES.index(finding.rule),
        "level": level,
        "message": {"text": _without_links(text)},
        "partialFingerprints": {"metaaudit/v1": finding.fingerprint},
        "locations": [
            {
                **artifacts.location(finding),
                "logicalLocations": list(_logical_locations(finding)),
            }
        ],
    }
    if judged:
        # Both have to be on all results or on none.
        old = one.status in ("known", "suppressed")
        result["baselineState"] = "unchanged" if old else "new"
        result["suppressions"] = []
        if one.status == "suppressed":
            why = {"justification": printable(one.reason)} if one.reason else {}
            result["suppressions"] = [{"kind": "external", "status": "accepted", **why}]
    return result


def _logical_locations(finding: Finding) -> Iterator[dict[str, str]]:
    subject = printable(finding.subject)
    kind = BY_NAME[finding.rule].subject
    yield {"name": subject, "fullyQualifiedName": subject, "kind": kind}
    for place in finding.places[:MAX_PLACES]:
        name = f"{place.set} {place.index}"
        task = printable(place.task_id)
        yield {"name": name, "fullyQualifiedName": f"{task}/{name}", "kind": "element"}


def _without_links(text: str) -> str:
    """Escapes what the format would read as a link, ``[text](target)``."""
    if "](" not in text:
        return text
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")


def _task_files(run: SavedRun) -> Path | None:
    """Where the training tasks came from, if that was a file or folder."""
    tasks = run.manifest["config"].get("tasks", {})
    place = tasks.get("root", tasks.get("train"))
    return Path(place) if isinstance(place, str) else None


class _Artifacts:
    """Where findings lie, without a trace of the folders around the current one."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._named = {} if root is None else _relative(root)

    def location(self, finding: Finding) -> dict[str, Any]:
        if not self._named:
            return {}
        named = dict(self._named)
        if BY_NAME[finding.rule].subject == "instance" and self._holds(finding.subject):
            named["uri"] += f"/{quote(finding.subject)}"
        return {"physicalLocation": {"artifactLocation": named}}

    def _holds(self, instance_id: str) -> bool:
        """Whether the id is that of a file below the root."""
        path = PurePosixPath(instance_id)
        if self._root is None or path.is_absolute() or ".." in path.parts:
            return False
        return os.path.isfile(self._root / path)  # noqa: PTH113  (``Path.is_file`` can raise)


def _relative(path: PurePath) -> dict[str, str]:
    absolute = Path(os.path.normpath(Path.cwd() / path))
    if absolute.is_relative_to(Path.cwd()) and absolute != Path.cwd():
        return {"uri": quote(absolute.relative_to(Path.cwd()).as_posix()), "uriBaseId": BASE}
    return {"uri": quote(absolute.name)}
