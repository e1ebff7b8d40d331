from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from rich.console import Console

from metaaudit.reports import print_tables
from metaaudit.runs.saved import SavedRun
from tests.run_folder import instance_rows, task_rows, write_run


def printed(run: SavedRun, top: int = 10) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    print_tables(run, console, top)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_prints_both_tables_findings_and_warnings(tmp_path: Path) -> None:
    text = printed(write_run(tmp_path / "run", warnings=("CG did not converge",)), top=3)
    assert "task-2 " in text
    assert "task-3 " not in text.split("Most suspicious")[0]
    assert "2 of 8 tasks harmful, 2 of 64 instances mislabeled" in text
    assert "warning: CG did not converge" in text


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
