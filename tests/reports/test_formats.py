from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metaaudit.errors import RunError
from metaaudit.findings import RuleName
from metaaudit.gates import Status
from metaaudit.reports import FORMATS, compare, parse_format, render
from metaaudit.reports.flat_csv import COLUMNS
from metaaudit.reports.headline import gate_line
from metaaudit.reports.markdown import TOP, escape
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow
from tests.reports.outcomes import outcome_of, tasks_and_a_borderline_one
from tests.run_folder import instance_rows, task_rows, write_run


@pytest.mark.parametrize("fmt", FORMATS)
def test_rendering_is_deterministic(tmp_path: Path, fmt: str) -> None:
    if fmt == "parquet":
        pytest.importorskip("pyarrow")
    texts = []
    for folder in ("a", "b"):
        run = write_run(tmp_path / folder / "run")
        other = write_run(tmp_path / folder / "other", task_rows(harmful=3))
        texts.append(render(run, fmt, outcome_of(run), compare(run, other)))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS if fmt not in ("html", "parquet")])
def test_no_absolute_path_leaks(tmp_path: Path, fmt: str) -> None:
    run = write_run(tmp_path / "run")
    config = {"checkpoint": str(tmp_path / "a.pt"), "tasks": {"root": str(tmp_path / "data")}}
    checkpoints = [{"path": str(tmp_path / "a.pt"), "sha256": "c" * 64}]
    manifest = {**run.manifest, "config": config, "checkpoints": checkpoints}
    placed = dataclasses.replace(run, manifest=manifest)
    text = render(placed, fmt, outcome_of(run), compare(placed, run))
    assert isinstance(text, str)
    assert tmp_path.name not in text


def test_no_format_imports_torch(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    code = """
import sys
from importlib.util import find_spec
from pathlib import Path
from metaaudit.reports import FORMATS, print_tables, render
from metaaudit.runs.saved import SavedRun
import metaaudit.pruning
assert "matplotlib" not in sys.modules, "matplotlib is imported before it is needed"
assert "pyarrow" not in sys.modules, "pyarrow is imported before it is needed"
for fmt in FORMATS:
    if fmt == "parquet" and find_spec("pyarrow") is None:
        continue
    render(SavedRun.open(Path(sys.argv[1])), fmt)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)


def test_parse_format_reads_format_and_file() -> None:
    assert parse_format("html=out/a=b.html") == ("html", Path("out/a=b.html"))


def test_parse_format_lets_github_go_without_a_file() -> None:
    assert parse_format("github") == ("github", None)
    assert parse_format("github=log.txt") == ("github", Path("log.txt"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("htlm=x", "did you mean 'html'"),
        ("HTML=x", "did you mean 'html'"),
        ("pdf=x", "expected one of html, md, json, csv, junit, sarif, github, parquet"),
        ("html", "expected html=FILE"),
        ("html=", "expected html=FILE"),
        ("parquet", "expected parquet=FILE"),
        ("github=", "expected github=FILE"),
    ],
)
def test_parse_format_names_the_remedy(text: str, says: str) -> None:
    with pytest.raises(RunError, match=says) as caught:
        parse_format(text)
    assert "\n" not in str(caught.value)


def test_render_refuses_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is unknown"):
        render(write_run(tmp_path / "run"), "xml")


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def test_json_has_both_tables_and_no_nan(tmp_path: Path) -> None:
    tasks = task_rows()
    tasks[-1] = dataclasses.replace(tasks[-1], grad_norm=float("inf"), outer_loss=float("nan"))
    run = write_run(tmp_path / "run", tasks)
    report = json.loads(render(run, "json"), parse_constant=_no_constant)
    assert [row["task_id"] for row in report["tasks"]] == [row.task_id for row in tasks]
    assert report["tasks"][-1]["grad_norm"] is None
    assert report["tasks"][-1]["outer_loss"] is None
    assert len(report["instances"]) == 64
    assert len(report["items"]) == 64
    assert report["findings"] == run.findings.model_dump(mode="json")
    assert report["manifest"]["checkpoints"] == run.manifest["checkpoints"]
    assert not {"gate", "comparison"} & set(report)


def test_json_tells_the_gate(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    outcome = outcome_of(
        run,
        ("harmful", "duplicate"),
        limit=1,
        statuses={("harmful", "task-1"): "suppressed"},
        reason="on purpose",
    )
    outcome = dataclasses.replace(outcome, stale=("gone",), notes=("expired",))
    gate = json.loads(render(run, "json", outcome))["gate"]
    assert gate["failed"] is True
    assert (gate["stale"], gate["notes"]) == (["gone"], ["expired"])
    assert [(one["rule"], one["limit"], one["failed"]) for one in gate["rules"]] == [
        ("harmful", 1, False),
        ("duplicate", 1, True),
    ]
    assert gate["rules"][0]["findings"] == [
        {
            "fingerprint": one.fingerprint,
            "subject": one.subject,
            "status": status,
            "reason": "on purpose" if status == "suppressed" else "",
        }
        for one, status in zip(run.findings.of("harmful"), ("new", "suppressed"), strict=True)
    ]


def test_json_tells_the_comparison(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    comparison = compare(run, write_run(tmp_path / "other", task_rows(harmful=3)))
    told = json.loads(render(run, "json", None, comparison))["comparison"]
    assert set(told) == {field.name for field in dataclasses.fields(comparison)}
    assert told["other"] == "other"
    assert told["rank_correlation"] == comparison.rank_correlation
    for name in ("appeared", "vanished", "stayed"):
        found = getattr(comparison, name)
        assert told[name] == [one.model_dump(mode="json") for one in found]
        assert found


def test_csv_is_one_flat_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    rows = list(csv.DictReader(io.StringIO(render(run, "csv"))))
    assert [row["kind"] for row in rows] == ["task"] * 8 + ["instance"] * 64 + ["item"] * 64
    assert rows[0]["task_id"] == "task-0"
    assert rows[0]["flagged"] == "true"
    assert rows[0]["instance_id"] == ""
    assert float(rows[0]["influence"]) == run.tasks[0].influence
    assert rows[0]["kinds"] == "noisy"
    assert float(rows[0]["harmful_q"]) == run.tasks[0].harmful_q
    assert rows[0]["influence_spread"] == rows[0]["q_value"] == ""
    assert rows[8]["set"] == "support"
    assert float(rows[8]["mislabel_score"]) == run.instances[0].mislabel_score
    assert float(rows[8]["q_value"]) == run.instances[0].q_value
    assert (rows[72]["flagged"], rows[72]["flagged_occurrences"]) == ("true", "1")
    assert rows[72]["content"] == run.items[0].content


def test_the_flat_table_has_every_column_of_the_rankings() -> None:
    names = {
        field.name for kind in (TaskRow, InstanceRow, ItemRow) for field in dataclasses.fields(kind)
    }
    assert names - set(COLUMNS) == {"harmful", "mislabeled"}  # which are "flagged"


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_holds_no_formulas(tmp_path: Path, start: str) -> None:
    tasks = task_rows()
    tasks[0] = dataclasses.replace(tasks[0], task_id=f"{start}cmd()")
    instances = [
        dataclasses.replace(row, instance_id=f"{start}1+1") for row in instance_rows(tasks)
    ]
    text = render(write_run(tmp_path / "run", tasks, instances), "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["task_id"] == f"'{start}cmd()"
    assert {row["instance_id"] for row in rows[8:]} == {f"'{start}1+1"}
    assert float(rows[7]["influence"]) < 0  # numbers stay numbers


def test_csv_spells_out_control_characters(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.tasks[0] = dataclasses.replace(run.tasks[0], task_id='\r\t=cmd()\n"')
    rows = list(csv.DictReader(io.StringIO(render(run, "csv"), newline="")))
    assert rows[0]["task_id"] == '\\r\\t=cmd()\\n"'
    assert len(rows) == 136


def test_markdown_cells_cannot_break_the_table(tmp_path: Path) -> None:
    tasks = task_rows()
    tasks[0] = dataclasses.replace(tasks[0], task_id="a|b`c\n| d\\| <i>@me [x](https://x.y)")
    text = render(write_run(tmp_path / "run", tasks), "md")
    lines = [line for line in text.splitlines() if "a&#124;b" in line]
    assert lines
    for line in lines:
        columns = {"| 1 | a": 8, "| ": 9}
        table = [count for start, count in columns.items() if line.startswith(start)]
        assert line.count("|") == (table[0] + 1 if table else 0)
        assert not {"`", "<", "@"} & set(line)
        assert "https://" not in line


def test_markdown_leaves_ordinary_ids_alone() -> None:
    assert escape("digits/task-01.png") == "digits/task-01.png"


def test_markdown_is_bounded(tmp_path: Path) -> None:
    tasks = task_rows(n_tasks=50, harmful=40)
    run = write_run(tmp_path / "run", tasks, instance_rows(tasks, mislabeled=40))
    text = render(run, "md")
    assert f"## Worst tasks ({TOP} of 50; tasks.csv has all)" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 * (TOP + 2)
    assert sum(line.startswith("- ") for line in text.splitlines()) == 3 * (TOP + 1)
    assert text.count(f"- and {40 - TOP} more") == 3


def test_markdown_tells_findings_by_rule_with_evidence(tmp_path: Path) -> None:
    text = render(write_run(tmp_path / "run", tasks_and_a_borderline_one()), "md")
    assert "### `harmful`: the task harms the evaluation tasks (2 flagged, 1 borderline)" in text
    assert "- task-0 is harmful (q 0.01)\n  - query loss after adaptation 1.5, median 1.2\n" in text
    assert "- task-2 is harmful (q 0.2; borderline)" in text
    assert "- task-2 is duplicate\n" in text


def test_markdown_escapes_what_findings_say(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    told = {"message": "<b>\n# x", "evidence": ("[y](z)",)}
    odd = run.findings.findings[0].model_copy(update=told)
    findings = run.findings.model_copy(update={"findings": (odd,)})
    text = str(render(dataclasses.replace(run, findings=findings), "md"))
    assert "- &#60;b&#62;&#92;n\\# x (q 0.01)\n  - \\[y\\](z)\n" in text


def test_markdown_says_first_what_the_gate_says(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    statuses: dict[tuple[RuleName, str], Status] = {("harmful", "task-1"): "suppressed"}
    outcome = outcome_of(run, ("harmful", "noisy"), limit=1, statuses=statuses, reason="a|b")
    outcome = dataclasses.replace(outcome, stale=("<gone>",), notes=("expired",))
    title, line, table, notes, *_ = str(render(run, "md", outcome)).split("\n\n")
    assert title == "# metaaudit: run"
    assert line == "**Gate failed: 2 new noisy (limit 1)**"
    assert table.splitlines()[2:] == [
        "| harmful | 1 | 0 | 1 | 0 | 1 | passed |",
        "| noisy | 2 | 0 | 0 | 0 | 1 | **failed** |",
    ]
    assert notes == "- expired\n- &#60;gone&#62;"
    text = str(render(run, "md", outcome))
    assert "- task-0 is noisy (q 0.01; **new, fails the gate**)" in text
    assert "- task-0 is harmful (q 0.01; new)" in text
    assert "- task-1 is harmful (q 0.01; suppressed; a&#124;b)" in text


@pytest.mark.parametrize(
    ("limit", "rules", "line"),
    [
        (2, ("harmful", "noisy"), "Gate passed: 2 new harmful (limit 2), 2 new noisy (limit 2)"),
        (0, ("harmful", "noisy"), "Gate failed: 2 new harmful (limit 0), 2 new noisy (limit 0)"),
        (0, (), "Gate: none is configured"),
    ],
)
def test_the_gate_in_one_line(
    tmp_path: Path, limit: int, rules: tuple[RuleName, ...], line: str
) -> None:
    assert gate_line(outcome_of(write_run(tmp_path / "run"), rules, limit)) == line


def test_markdown_tells_the_comparison(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", task_rows(harmful=3))
    other = write_run(tmp_path / "an_other")
    config = {**other.manifest["config"], "learner": {"name": "anil"}}
    other = dataclasses.replace(other, manifest={**other.manifest, "config": config})
    text = str(render(run, "md", None, compare(run, other)))
    assert "## Comparison with an\\_other" in text
    assert "### Appeared (2)\n\n- `harmful`: task-2 is harmful\n- `noisy`: task-2 is noisy" in text
    assert "### Vanished (1)\n\n- `duplicate`: task-2 is duplicate" in text
    assert "| learner.name | maml | anil |" in text
