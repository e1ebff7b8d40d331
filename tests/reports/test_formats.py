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
from metaaudit.reports import FORMATS, parse_format, render
from metaaudit.reports.markdown import TOP, escape
from tests.run_folder import instance_rows, task_rows, write_run


@pytest.mark.parametrize("fmt", FORMATS)
def test_rendering_is_deterministic(tmp_path: Path, fmt: str) -> None:
    assert render(write_run(tmp_path / "a" / "run"), fmt) == render(
        write_run(tmp_path / "b" / "run"), fmt
    )


def test_no_format_imports_torch(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    code = """
import sys
from pathlib import Path
from metaaudit.reports import FORMATS, print_tables, render
from metaaudit.runs.saved import SavedRun
import metaaudit.pruning
assert "matplotlib" not in sys.modules, "matplotlib is imported before it is needed"
for fmt in FORMATS:
    render(SavedRun.open(Path(sys.argv[1])), fmt)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)


def test_parse_format_reads_format_and_file() -> None:
    assert parse_format("html=out/a=b.html") == ("html", Path("out/a=b.html"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("htlm=x", "did you mean 'html'"),
        ("HTML=x", "did you mean 'html'"),
        ("pdf=x", "expected one of html, md, json, csv"),
        ("html", "expected html=FILE"),
        ("html=", "expected html=FILE"),
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
    assert report["findings"] == run.findings
    assert report["manifest"]["checkpoint"] == run.manifest["checkpoint"]


def test_csv_is_one_flat_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    rows = list(csv.DictReader(io.StringIO(render(run, "csv"))))
    assert [row["kind"] for row in rows] == ["task"] * 8 + ["instance"] * 64
    assert rows[0]["task_id"] == "task-0"
    assert rows[0]["flagged"] == "true"
    assert rows[0]["instance_id"] == ""
    assert float(rows[0]["influence"]) == run.tasks[0].influence
    assert rows[8]["set"] == "support"
    assert float(rows[8]["mislabel_score"]) == run.instances[0].mislabel_score


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
    assert len(rows) == 72


def test_markdown_cells_cannot_break_the_table(tmp_path: Path) -> None:
    tasks = task_rows()
    tasks[0] = dataclasses.replace(tasks[0], task_id="a|b`c\n| d\\| <i>@me [x](https://x.y)")
    text = render(write_run(tmp_path / "run", tasks), "md")
    lines = [line for line in text.splitlines() if "a&#124;b" in line]
    assert lines
    for line in lines:
        columns = 6 if line.startswith("| 1 | a") else 8
        assert line.count("|") == columns + 1
        assert not {"`", "<", "@"} & set(line)
        assert "https://" not in line


def test_markdown_leaves_ordinary_ids_alone() -> None:
    assert escape("digits/task-01.png") == "digits/task-01.png"


def test_markdown_is_bounded(tmp_path: Path) -> None:
    text = render(write_run(tmp_path / "run", task_rows(n_tasks=50)), "md")
    assert f"## Worst tasks ({TOP} of 50; tasks.csv has all)" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 * (TOP + 2)
