from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from rich.console import Console

from metaaudit.reports import compare, print_comparison, print_tables
from metaaudit.runs.saved import SavedRun
from tests.reports.outcomes import tasks_and_a_borderline_one
from tests.run_folder import instance_rows, task_rows, write_run


def printed(run: SavedRun, top: int = 10, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_tables(run, console, top)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_prints_both_tables_findings_and_warnings(tmp_path: Path) -> None:
    text = printed(write_run(tmp_path / "run", warnings=("CG did not converge",)), top=3)
    assert "task-2 " in text
    assert "task-3 " not in text.split("Most suspicious")[0]
    assert "2 of 8 tasks harmful, 2 noisy, 1 contradictory, 2 duplicate, 1 outlier; " in text
    assert "2 of 64 instances mislabeled" in text
    assert "warning: CG did not converge" in text


def row(text: str, start: str) -> list[str]:
    """The cells of the first row of a table that starts so."""
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in line] for line in lines]
    return next(cells for cells in rows if " │ ".join(cells).startswith(start))


def test_it_prints_kinds_q_values_and_findings_by_rule(tmp_path: Path) -> None:
    text = printed(write_run(tmp_path / "run", tasks_and_a_borderline_one()))
    assert row(text, "1 │ task-0")[-3:] == ["0.01", "25%", "harmful noisy"]
    assert row(text, "3 │ task-2")[-3:] == ["0.2", "0%", "duplicate"]
    assert row(text, "1 │ image-0")[-4:-2] == ["0.99", "0.01"]
    assert row(text, "harmful") == ["harmful", "the task harms the evaluation tasks", "2", "1"]
    assert row(text, "outlier")[-2:] == ["1", "0"]


def compared(run: SavedRun, other: SavedRun) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    print_comparison(compare(run, other), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_comparison_tells_what_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", task_rows(harmful=3))
    other = write_run(tmp_path / "[red]other")
    config = {**other.manifest["config"], "learner": {"name": "[b]anil"}}
    other = dataclasses.replace(other, manifest={**other.manifest, "config": config})
    text = compared(run, other)
    assert "Appeared (2 of 2)" in text
    assert row(text, "harmful") == ["harmful", "task-2 is harmful", "0.01"]
    assert row(text, "duplicate") == ["duplicate", "task-2 is duplicate", ""]
    assert row(text, "learner.name") == ["learner.name", "maml", "[b]anil"]
    assert "Findings compared with [red]other: 2 appeared, 1 vanished, 9 stayed." in text
    assert "Tasks: 8 in both runs, 0 only in this one, 0 only in the other; " in text
    assert "rank correlation of their influence +1.00." in text


def test_a_comparison_of_the_same_prints_no_tables(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    text = compared(run, run)
    assert "│" not in text
    assert "0 appeared, 0 vanished, 10 stayed" in text


def test_a_comparison_is_bounded(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", task_rows(50, harmful=40))
    text = compared(run, write_run(tmp_path / "other", task_rows(50, harmful=0)))
    assert "Appeared (10 of " in text
    assert text.count("is harmful") == 10


def test_a_narrow_terminal_cuts_no_number_off(tmp_path: Path) -> None:
    text = printed(write_run(tmp_path / "run"), width=80)
    assert "…" not in text
    assert "-0.000150" in text
    assert row(text, "1 │ image-0")[-1] == "yes"


def test_ids_are_not_read_as_markup_or_control_codes(tmp_path: Path) -> None:
    tasks = task_rows()
    tasks[0] = dataclasses.replace(tasks[0], task_id="[red]task[/red]")
    instances = [
        dataclasses.replace(row, instance_id="[/nonsense]\x1b[2J") for row in instance_rows(tasks)
    ]
    text = printed(write_run(tmp_path / "run", tasks, instances, warnings=("[bold]careful",)))
    assert "[red]task[/red]" in text
    assert "[/nonsense]\\x1b[2J" in text
    assert "[bold]careful" in text
    assert "\x1b" not in text
