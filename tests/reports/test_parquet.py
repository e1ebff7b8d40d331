from __future__ import annotations

import csv
import dataclasses
import io
import sys
from pathlib import Path

import pytest

from metaaudit.errors import RunError
from metaaudit.reports import render
from metaaudit.reports.flat_csv import COLUMNS
from metaaudit.runs.saved import SavedRun
from tests.run_folder import task_rows, write_run

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def read(run: SavedRun) -> object:
    data = render(run, "parquet")
    assert isinstance(data, bytes)
    return parquet.read_table(io.BytesIO(data))


def test_it_reads_back_with_its_types(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    table = read(run)
    names = {"string": str, "int64": int, "double": float, "bool": bool}
    assert {field.name: names[str(field.type)] for field in table.schema} == COLUMNS
    rows = table.to_pylist()
    assert [row["kind"] for row in rows] == ["task"] * 8 + ["instance"] * 64 + ["item"] * 64
    assert rows[0]["influence"] == run.tasks[0].influence
    assert rows[0]["flagged"] is True
    assert rows[0]["influence_spread"] is None
    assert rows[0]["loss"] is None
    assert rows[0]["kinds"] == "noisy"
    assert rows[8]["label"] == str(run.instances[0].label)
    assert rows[72]["flagged_occurrences"] == 1


def test_it_holds_what_the_csv_table_holds(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    lines = csv.DictReader(io.StringIO(str(render(run, "csv"))))
    for row, line in zip(read(run).to_pylist(), lines, strict=True):
        for name, kind in COLUMNS.items():
            if row[name] is None:
                assert line[name] == ""
            elif kind is bool:
                assert line[name] == str(row[name]).lower()
            else:
                assert kind(line[name]) == row[name]


def test_ids_stay_as_they_are(tmp_path: Path) -> None:
    tasks = task_rows()
    tasks[0] = dataclasses.replace(tasks[0], task_id="=cmd()\x1b")
    assert read(write_run(tmp_path / "run", tasks)).to_pylist()[0]["task_id"] == "=cmd()\x1b"


def test_a_missing_pyarrow_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RunError, match=r"pip install 'metaaudit\[parquet\]'"):
        render(run, "parquet")
