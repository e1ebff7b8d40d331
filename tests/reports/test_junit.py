from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema

from metaaudit.findings import RULES
from metaaudit.gates import Outcome
from metaaudit.reports import render
from metaaudit.runs.saved import SavedRun
from tests.reports.outcomes import outcome_of, tasks_and_a_borderline_one
from tests.run_folder import instance_rows, task_rows, write_run

SCHEMA = Path(__file__).parents[3] / "shared" / "schemas" / "JUnit.xsd"


def rendered(run: SavedRun, outcome: Outcome | None = None) -> ElementTree.Element:
    text = render(run, "junit", outcome)
    if SCHEMA.exists():
        xmlschema.XMLSchema(SCHEMA).validate(text)
    return ElementTree.fromstring(text)


def results(suites: ElementTree.Element, rule: str) -> dict[str, str]:
    """``failure``, ``skipped`` or ``passed`` by the name of the test case."""
    return {
        case.get("name", ""): next((child.tag for child in case), "passed")
        for case in suites.iterfind(f"testsuite[@name='{rule}']/testcase")
    }


@pytest.mark.skipif(not SCHEMA.exists(), reason="the schema of JUnit is not there")
def test_the_schema_would_refuse_something_else(tmp_path: Path) -> None:
    text = render(write_run(tmp_path / "run"), "junit")
    schema = xmlschema.XMLSchema(SCHEMA)
    assert schema.is_valid(text)
    assert not schema.is_valid(text.replace("hostname", "host"))


def test_every_rule_is_a_suite_and_every_finding_a_case(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    suites = rendered(run)
    assert [suite.get("name") for suite in suites] == list(RULES)
    for suite in suites:
        found = run.findings.of(suite.get("name"))  # type: ignore[arg-type]
        cases = suite.findall("testcase")
        assert [case.get("name") for case in cases] == [one.subject for one in found]
        assert suite.get("tests") == str(len(cases))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))


def test_without_a_gate_what_is_flagged_fails(tmp_path: Path) -> None:
    suites = rendered(write_run(tmp_path / "run", tasks_and_a_borderline_one()))
    assert results(suites, "harmful") == {
        "task-0": "failure",
        "task-1": "failure",
        "task-2": "skipped",
    }
    assert set(results(suites, "mislabeled").values()) == {"failure"}


def test_a_rule_without_findings_passes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", task_rows(n_tasks=2))
    assert results(rendered(run), "outlier") == {"no findings": "passed"}


def test_new_findings_of_a_failed_gate_fail_and_the_rest_is_skipped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    statuses = {("harmful", "task-1"): "known", ("duplicate", "task-2"): "suppressed"}
    gated = ("harmful", "duplicate", "outlier")
    outcome = outcome_of(run, gated, statuses=statuses, reason="on purpose")  # type: ignore[arg-type]
    suites = rendered(run, outcome)
    assert results(suites, "harmful")["task-0"] == "failure"
    assert results(suites, "harmful")["task-1"] == "skipped"
    assert results(suites, "duplicate") == {"task-2": "skipped", "task-3": "failure"}
    assert set(results(suites, "noisy").values()) == {"skipped"}  # no gate
    reasons = [
        one.get("message") for one in suites.iterfind("testsuite[@name='duplicate']//skipped")
    ]
    assert reasons == ["suppressed: on purpose"]


def test_new_findings_within_the_limit_do_not_fail(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    suites = rendered(run, outcome_of(run, limit=2))
    assert not list(suites.iter("failure"))
    assert list(rendered(run, outcome_of(run, limit=1)).iter("failure"))


def test_a_failure_says_what_and_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    failure = rendered(run).find("testsuite[@name='harmful']/testcase/failure")
    assert failure is not None
    finding = run.findings.of("harmful")[0]
    assert failure.get("message") == finding.message
    assert failure.get("type") == "harmful"
    assert failure.text is not None
    for part in (*finding.evidence, finding.fingerprint, "q-value 0.01"):
        assert part in failure.text


NASTY = "a\x00\x1b\x0b\ufffe\ud7ff\u202e<b>&\"']]>\n\t$"


def test_ids_cannot_break_the_document(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    found = [
        one.model_copy(update={"subject": NASTY, "message": NASTY, "evidence": (NASTY,)})
        for one in run.findings.findings
    ]
    run = dataclasses.replace(
        run, findings=run.findings.model_copy(update={"findings": tuple(found)})
    )
    case = rendered(run).find("testsuite/testcase")
    assert case is not None
    assert case.get("name") == "a\\x00\\x1b\\x0b\\ufffe\\ud7ff\\u202e<b>&\"']]>\\n\\t$"


def test_no_clock_and_no_host(tmp_path: Path) -> None:
    tasks = task_rows()
    text = render(write_run(tmp_path / "run", tasks, instance_rows(tasks)), "junit")
    assert text.count('timestamp="1970-01-01T00:00:00" hostname="localhost" time="0"') == 6
