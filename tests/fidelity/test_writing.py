"""What is written of an evaluation, and what is printed."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from metaaudit.fidelity.results import Figure, Result, Series, Table
from metaaudit.fidelity.writing import (
    INCOMPLETE,
    MAX_ROWS,
    markdown,
    named_apart,
    print_results,
    write_evaluation,
)
from tests.small import files

TABLE = Table(
    "lds",
    "Scores of [bold]all[/bold]",
    ("candidate", "LDS", "sure", "seeds"),
    [("a|b", 0.123456, True, 2), ("\x1b[31mred", float("nan"), False, None)],
)
FIGURE = Figure("lds", "Scores", "", "LDS", (Series("LDS", ("a", "b"), (0.1, 0.2), (0.1, 0.1)),))
RESULT = Result("lds", "What is asked", (TABLE,), (FIGURE,), ("a note",), details={"n": 1})


def printed(result: Result, width: int = 100) -> str:
    out = io.StringIO()
    print_results([result], Console(file=out, width=width))
    return out.getvalue()


def test_markdown_has_the_warnings_and_no_plot_that_is_not_drawn() -> None:
    text = markdown([replace(RESULT, figures=(replace(FIGURE, series=()),))], ["one <b>"])
    assert "## Warnings\n\n- one &#60;b&#62;" in text and "![" not in text
    assert "Warnings" not in markdown([RESULT])


def test_everything_is_written(tmp_path: Path) -> None:
    write_evaluation(tmp_path, [RESULT], {"cores": 2})
    assert sorted(files(tmp_path)) == [
        "evaluation.json",
        "evaluation.md",
        "lds.csv",
        "lds.png",
        "lds.svg",
    ]
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert (found["schema_version"], found["complete"], found["cores"]) == (1, True, 2)
    (result,) = found["results"]
    assert result["kind"] == "lds" and result["details"] == {"n": 1}
    assert result["tables"][0]["rows"][1] == ["\x1b[31mred", None, False, None]
    assert result["figures"][0]["series"][0]["y"] == [0.1, 0.2]
    rows = list(csv.reader(io.StringIO((tmp_path / "lds.csv").read_text())))
    assert rows == [
        list(TABLE.columns),
        ["a|b", "0.123456", "True", "2"],
        ["\x1b[31mred", "", "False", ""],
    ]


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_evaluation(tmp_path / name, [RESULT], {})
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_markdown_has_tables_figures_and_notes() -> None:
    text = markdown([RESULT])
    assert "| candidate | LDS | sure | seeds |\n| --- | ---: | --- | ---: |" in text
    assert "| a&#124;b | 0.123 | yes | 2 |" in text
    assert "\\x1b" not in text and "&#92;x1b" in text
    assert "![Scores](lds.svg)" in text
    assert "- a note" in text
    assert INCOMPLETE not in text
    assert INCOMPLETE in markdown([replace(RESULT, complete=False)])


def test_long_tables_are_cut_where_people_read_them(tmp_path: Path) -> None:
    rows = [(f"row {i}", float(i), True, i) for i in range(MAX_ROWS + 7)]
    result = replace(RESULT, tables=(replace(TABLE, rows=list(rows)),))
    text = markdown([result])
    assert f"{MAX_ROWS} of 57 rows; [lds.csv](lds.csv) has all." in text
    assert f"row {MAX_ROWS}" not in text
    assert "and 37 more rows in lds.csv" in printed(result)


def test_a_terminal_shows_the_tables_and_no_markup_of_others() -> None:
    text = printed(RESULT)
    assert "[bold]all[/bold]" in text and "\\x1b[31mred" in text and "0.123" in text
    assert "a note" in text and INCOMPLETE not in text
    assert INCOMPLETE in printed(replace(RESULT, complete=False))


def test_no_number_is_cut_on_a_narrow_terminal() -> None:
    assert "0.123" in printed(RESULT, width=30)


def test_wide_tables_are_in_files_alone() -> None:
    columns = tuple(f"column {i}" for i in range(30))
    wide = replace(TABLE, columns=columns, rows=[columns])
    text = printed(replace(RESULT, tables=(wide,)))
    assert "column 3" not in text and "lds.csv" in text


def test_a_second_experiment_of_a_kind_has_files_of_its_own(tmp_path: Path) -> None:
    other = replace(TABLE, name="lds-2")
    results = [RESULT, replace(RESULT, tables=(TABLE, other)), RESULT]
    named = named_apart(results)
    tables = [table.name for result in named for table in result.tables]
    figures = [figure.name for result in named for figure in result.figures]
    assert len(set(tables)) == 4 and tables[:2] == ["lds", "lds-2"]
    assert figures == ["lds", "lds-2", "lds-3"]
    assert named_apart(named) == named
