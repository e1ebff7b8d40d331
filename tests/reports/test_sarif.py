from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from metaaudit.findings import RULES
from metaaudit.findings.explain import explanation
from metaaudit.gates import Outcome
from metaaudit.reports import render
from metaaudit.runs.saved import SavedRun
from tests.reports.outcomes import outcome_of, tasks_and_a_borderline_one
from tests.run_folder import instance_rows, task_rows, write_run

SCHEMA = Path(__file__).parents[3] / "shared" / "schemas" / "sarif-schema-2.1.0.json"


def rendered(run: SavedRun, outcome: Outcome | None = None) -> dict[str, Any]:
    """The only run of the log, which is valid."""
    log = json.loads(render(run, "sarif", outcome))
    if SCHEMA.exists():
        jsonschema.validate(log, json.loads(SCHEMA.read_text(encoding="utf-8")))
    (only,) = log["runs"]
    assert isinstance(only, dict)
    return only


def with_tasks(run: SavedRun, tasks: dict[str, Any]) -> SavedRun:
    config = {**run.manifest["config"], "tasks": tasks}
    return dataclasses.replace(run, manifest={**run.manifest, "config": config})


def artifact(result: dict[str, Any]) -> dict[str, str]:
    location = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert isinstance(location, dict)
    return location


def of(log: dict[str, Any], rule: str) -> list[dict[str, Any]]:
    return [one for one in log["results"] if one["ruleId"] == rule]


@pytest.mark.skipif(not SCHEMA.exists(), reason="the schema of SARIF is not there")
def test_the_schema_would_refuse_something_else(tmp_path: Path) -> None:
    log = json.loads(render(write_run(tmp_path / "run"), "sarif"))
    log["runs"][0]["results"][0]["level"] = "dreadful"
    with pytest.raises(jsonschema.ValidationError, match="dreadful"):
        jsonschema.validate(log, json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_every_rule_is_explained_and_every_finding_a_result(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    log = rendered(run)
    rules = log["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    assert [rule["help"]["markdown"] for rule in rules] == [explanation(rule) for rule in RULES]
    by_rule = sorted(run.findings.findings, key=lambda one: RULES.index(one.rule))
    assert [one["partialFingerprints"] for one in log["results"]] == [
        {"metaaudit/v1": one.fingerprint} for one in by_rule
    ]
    for result, finding in zip(log["results"], by_rule, strict=True):
        assert result["ruleId"] == rules[result["ruleIndex"]]["id"] == finding.rule
        assert result["message"]["text"] == "\n".join((finding.message, *finding.evidence))


def test_levels_without_a_gate(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks_and_a_borderline_one())
    log = rendered(run)
    flagged = {one.fingerprint: one.flagged for one in run.findings.findings}
    levels = {
        (flagged[one["partialFingerprints"]["metaaudit/v1"]], one["level"])
        for one in log["results"]
    }
    assert levels == {(True, "warning"), (False, "note")}
    assert all("baselineState" not in one for one in log["results"])
    assert all("suppressions" not in one for one in log["results"])


def test_an_outcome_gives_levels_baseline_states_and_suppressions(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks_and_a_borderline_one())
    outcome = outcome_of(
        run,
        ("harmful", "duplicate"),
        statuses={("harmful", "task-1"): "known", ("duplicate", "task-2"): "suppressed"},
        reason="on purpose",
    )
    log = rendered(run, outcome)
    harmful, duplicate = of(log, "harmful"), of(log, "duplicate")
    assert [one["level"] for one in harmful] == ["error", "warning", "note"]
    assert [one["baselineState"] for one in harmful[:2]] == ["new", "unchanged"]
    assert [one["level"] for one in duplicate] == ["warning", "error"]
    assert [one["baselineState"] for one in duplicate] == ["unchanged", "new"]
    assert duplicate[0]["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "on purpose"}
    ]
    assert all(one["suppressions"] == [] for one in log["results"] if one is not duplicate[0])
    assert {one["level"] for one in of(log, "noisy")} == {"warning"}  # no gate


def test_a_gate_that_passes_makes_no_errors(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    log = rendered(run, outcome_of(run, limit=10))
    assert "error" not in {one["level"] for one in log["results"]}


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ({"root": "{here}/data/om ni#1"}, {"uri": "data/om%20ni%231", "uriBaseId": "%SRCROOT%"}),
        (
            {"train": "{here}/data/train.npz", "eval": "{here}/x.npz"},
            {"uri": "data/train.npz", "uriBaseId": "%SRCROOT%"},
        ),
        ({"root": "{here}/../elsewhere/omniglot"}, {"uri": "omniglot"}),
        ({"root": "{here}"}, {"uri": "here"}),
        ({"root": "data/omniglot"}, {"uri": "data/omniglot", "uriBaseId": "%SRCROOT%"}),
    ],
    ids=["folder", "file", "outside", "the current folder", "relative"],
)
def test_task_files_are_named_from_the_current_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tasks: dict[str, str],
    expected: dict[str, str],
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    placed = {key: text.format(here=here) for key, text in tasks.items()}
    run = with_tasks(write_run(tmp_path / "run"), placed)
    assert [artifact(one) for one in rendered(run)["results"]] == [expected] * len(
        run.findings.findings
    )


def test_tasks_of_no_file_have_logical_locations_only(tmp_path: Path) -> None:
    run = with_tasks(write_run(tmp_path / "run"), {"format": "factory", "train": {"tasks": 3}})
    for result in rendered(run)["results"]:
        assert list(result["locations"][0]) == ["logicalLocations"]


@pytest.mark.parametrize("outside", [False, True])
def test_an_instance_that_is_a_file_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: bool
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here" if outside else tmp_path)
    root = tmp_path / "data"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "1 .png").touch()
    (tmp_path / "secret.png").touch()
    tasks = task_rows()
    ids = ["cat/1 .png", "../secret.png", str(tmp_path / "secret.png"), "cat", "x" * 5000]
    rows = [
        dataclasses.replace(row, instance_id=ids[place]) if place < len(ids) else row
        for place, row in enumerate(instance_rows(tasks, mislabeled=5))
    ]
    log = rendered(with_tasks(write_run(tmp_path / "run", tasks, rows), {"root": str(root)}))
    uris = [artifact(one)["uri"] for one in of(log, "mislabeled")]
    assert uris == ["data/cat/1%20.png", "data", "data", "data", "data"]
    assert {artifact(one)["uri"] for one in of(log, "harmful")} == {"data"}


def test_logical_locations_name_the_task_or_the_instance_and_its_places(tmp_path: Path) -> None:
    log = rendered(write_run(tmp_path / "run"))
    assert of(log, "harmful")[0]["locations"][0]["logicalLocations"] == [
        {"name": "task-0", "fullyQualifiedName": "task-0", "kind": "task"}
    ]
    assert of(log, "mislabeled")[0]["locations"][0]["logicalLocations"] == [
        {
            "name": "image-0-support-0",
            "fullyQualifiedName": "image-0-support-0",
            "kind": "instance",
        },
        {"name": "support 0", "fullyQualifiedName": "task-0/support 0", "kind": "element"},
    ]


def test_no_absolute_path_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    secret = tmp_path / "secret-place"
    (secret / "here").mkdir(parents=True)
    for here in (secret, secret / "here"):
        monkeypatch.chdir(here)
        placed = with_tasks(run, {"root": str(secret / "data"), "image": {"size": 28}})
        text = str(render(placed, "sarif", outcome_of(run)))
        assert '"uri": "data"' in text
        assert "secret-place" not in text
        assert str(tmp_path) not in text


def test_messages_hold_no_links_and_no_control_characters(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    odd = run.findings.findings[0].model_copy(
        update={"message": "a\x1b[2J", "evidence": ("[x](1)",)}
    )
    run = dataclasses.replace(run, findings=run.findings.model_copy(update={"findings": (odd,)}))
    (result,) = rendered(run)["results"]
    assert result["message"]["text"] == "a\\\\x1b\\[2J\n\\[x\\](1)"
