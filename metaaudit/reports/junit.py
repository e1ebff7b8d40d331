"""Findings as JUnit XML, which continuous integration shows as tests."""

from __future__ import annotations

from xml.etree import ElementTree

from metaaudit.findings import BY_NAME, RULES, RuleName
from metaaudit.gates import Outcome
from metaaudit.printable import printable
from metaaudit.reports.text import q_value
from metaaudit.reports.verdicts import Verdict, verdicts
from metaaudit.runs.saved import SavedRun

# The schema wants to know when, where and how long. A run folder gives the same report at all times
# and everywhere, so these stay the same.
_WHEN = {"timestamp": "1970-01-01T00:00:00", "hostname": "localhost", "time": "0"}

_SKIPPED = {
    "new": "new, but no more than the gate lets pass",
    "known": "known from the baseline",
    "suppressed": "suppressed",
    "borderline": "borderline",
    None: "no gate is configured for the rule",
}


def render_junit(run: SavedRun, outcome: Outcome | None = None) -> str:
    """One test suite a rule and one test case a finding.

    Findings fail that fail the gate, or that are flagged where there is no ``outcome``; the others
    are skipped, with the reason. A rule without findings has one test case that passes.
    """
    suites = ElementTree.Element("testsuites")
    judged = verdicts(run, outcome)
    for number, rule in enumerate(RULES):
        cases = [
            _case(one, one.fails if outcome else one.finding.flagged)
            for one in judged
            if one.finding.rule == rule
        ]
        _add_suite(suites, number, rule, cases or [_test_case(rule, "no findings")])
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _add_suite(
    suites: ElementTree.Element, number: int, rule: RuleName, cases: list[ElementTree.Element]
) -> None:
    failures, skipped = (
        sum(case.find(kind) is not None for case in cases) for kind in ("failure", "skipped")
    )
    counts = {"tests": len(cases), "failures": failures, "errors": 0, "skipped": skipped}
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        {
            "name": rule,
            "package": "metaaudit",
            "id": str(number),
            **{name: str(count) for name, count in counts.items()},
            **_WHEN,
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    told = {"name": "summary", "value": BY_NAME[rule].summary}
    ElementTree.SubElement(properties, "property", told)
    suite.extend(cases)
    ElementTree.SubElement(suite, "system-out")
    ElementTree.SubElement(suite, "system-err")


def _case(one: Verdict, fails: bool) -> ElementTree.Element:
    finding = one.finding
    case = _test_case(finding.rule, finding.subject)
    message = printable(finding.message)
    if fails:
        told = ElementTree.SubElement(case, "failure", message=message, type=finding.rule)
    else:
        why = _SKIPPED[one.status] + (f": {printable(one.reason)}" if one.reason else "")
        told = ElementTree.SubElement(case, "skipped", message=why)
    q = q_value(finding.q_value)
    lines = [message, *map(printable, finding.evidence), *([f"q-value {q}"] if q else [])]
    told.text = "\n".join([*lines, f"fingerprint {finding.fingerprint}"])
    return case


def _test_case(rule: RuleName, name: str) -> ElementTree.Element:
    # Control characters are spelled out, also because XML has none.
    named = {"classname": f"metaaudit.{rule}", "name": printable(name), "time": "0"}
    return ElementTree.Element("testcase", named)
