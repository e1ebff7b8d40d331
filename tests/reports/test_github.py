from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from metaaudit.errors import RunError
from metaaudit.reports import append_summary, render
from metaaudit.reports.github import MAX_SUMMARY_BYTES, command
from metaaudit.runs.saved import SavedRun
from tests.reports.outcomes import outcome_of, tasks_and_a_borderline_one
from tests.run_folder import instance_rows, task_rows, write_run


def commands(text: str) -> list[tuple[str, str, str]]:
    """``(command, title, message)`` of each line, unescaped as GitHub does."""
    found = []
    for line in text.splitlines():
        empty, head, message = line.split("::", 2)
        assert empty == ""
        name, _, title = head.partition(" title=")
        assert not {":", ","} & set(title)
        found.append((name, _unescaped(title), _unescaped(message)))
    return found


def _unescaped(text: str) -> str:
    for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, char)
    return text


def without_findings(run: SavedRun) -> SavedRun:
    return dataclasses.replace(run, findings=run.findings.model_copy(update={"findings": ()}))


def test_flagged_findings_are_warnings_without_a_gate(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks_and_a_borderline_one())
    found = commands(render(run, "github"))
    flagged = [one for one in run.findings.findings if one.flagged]
    assert len(flagged) == len(run.findings.findings) - 1 == 10
    assert {name for name, *_ in found} == {"warning"}
    assert sorted(message for *_, message in found) == sorted(
        "\n".join((one.message, *one.evidence)) for one in flagged
    )
    assert found[0][1] == "harmful: the task harms the evaluation tasks"


def test_the_worst_of_every_rule_come_first(tmp_path: Path) -> None:
    found = commands(render(write_run(tmp_path / "run"), "github"))
    rules = [title.partition(":")[0] for _, title, _ in found]
    assert rules[:6] == [
        *("harmful", "mislabeled", "noisy"),
        *("contradictory", "duplicate", "outlier"),
    ]
    assert rules[6:] == ["harmful", "mislabeled", "noisy", "duplicate"]


def test_what_fails_the_gate_comes_first_as_errors(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    outcome = outcome_of(
        run,
        ("harmful", "mislabeled", "duplicate"),
        statuses={
            ("harmful", "task-0"): "known",
            ("mislabeled", "image-0-support-0"): "suppressed",
        },
    )
    found = commands(render(run, "github", outcome))
    names = [name for name, *_ in found]
    assert names == ["error"] * 4 + ["warning"] * 4
    messages = [message for *_, message in found]
    assert not any(one.startswith(("task-0 is harmful", "image-0-support-0")) for one in messages)


def test_new_findings_within_the_limit_are_warnings(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "::error" not in render(run, "github", outcome_of(run, limit=2))


def test_ten_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    tasks = task_rows(30, harmful=20)
    run = write_run(tmp_path / "run", tasks, instance_rows(tasks))
    total = sum(one.flagged for one in run.findings.findings)
    found = commands(render(run, "github", outcome_of(run)))
    assert [name for name, *_ in found] == ["error"] * 10 + ["notice"]
    assert found[-1] == ("notice", "metaaudit findings", f"{total - 10} more")


def test_nothing_found_prints_nothing(tmp_path: Path) -> None:
    assert render(without_findings(write_run(tmp_path / "run")), "github") == ""


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("100%", "100%25"),
        ("%0A::error::x", "%250A::error::x"),
        ("a\r\n::error::x", "a\\r\\n::error::x"),
        ("a\x1b]b", "a\\x1b]b"),
    ],
)
def test_ids_cannot_give_commands(tmp_path: Path, text: str, escaped: str) -> None:
    run = write_run(tmp_path / "run")
    odd = run.findings.findings[0].model_copy(update={"message": text, "evidence": (text,)})
    run = dataclasses.replace(run, findings=run.findings.model_copy(update={"findings": (odd,)}))
    line = render(run, "github")
    assert line.count("\n") == 1
    assert line.endswith(f"::{escaped}%0A{escaped}\n")


def test_the_title_is_escaped_as_a_property(tmp_path: Path) -> None:
    line = render(write_run(tmp_path / "run"), "github").splitlines()[0]
    assert line.startswith("::warning title=harmful%3A the task harms the evaluation tasks::task-0")


def test_a_command_stays_on_one_line_and_its_title_within_it() -> None:
    line = command("notice", "a: b,\r\n100%", "c: d,\r\n100%")
    assert line == "::notice title=a%3A b%2C%0D%0A100%25::c: d,%0D%0A100%25"


def summary(path: Path) -> dict[str, str]:
    return {"GITHUB_STEP_SUMMARY": str(path)}


@pytest.mark.parametrize("environ", [{}, {"GITHUB_STEP_SUMMARY": ""}])
def test_without_a_job_summary_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    append_summary(run, None, None, environ)
    assert list(Path.cwd().iterdir()) == []


def test_the_report_is_added_to_the_job_summary(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    outcome = outcome_of(run)
    path = tmp_path / "summary.md"
    path.write_text("before", encoding="utf-8")
    append_summary(run, outcome, None, summary(path))
    assert path.read_text(encoding="utf-8") == f"before\n{render(run, 'md', outcome)}"


@pytest.mark.parametrize("room", [0, 10, 100, 2000, 3000])
def test_a_job_summary_never_grows_too_large(tmp_path: Path, room: int) -> None:
    tasks = [dataclasses.replace(row, task_id=f"é{row.task_id}") for row in task_rows()]
    run = write_run(tmp_path / "run", tasks)
    report = render(run, "md")
    path = tmp_path / "summary.md"
    before = "x" * (MAX_SUMMARY_BYTES - room)
    path.write_text(before, encoding="utf-8")
    append_summary(run, None, None, summary(path))
    text = path.read_bytes().decode("utf-8")
    added = text.removeprefix(before)
    assert path.stat().st_size <= MAX_SUMMARY_BYTES
    assert bool(added) == (room >= 100)
    if added:
        lines, _, note = added.rpartition("\n\n")
        assert note == "The report goes on, but a job summary can be no larger.\n"
        assert f"\n{report}".startswith(lines)
        assert f"\n{report}"[len(lines)] == "\n"
        assert len(added.encode()) > room - 300


def test_a_report_that_just_fits_is_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    report = f"\n{render(run, 'md')}"
    path = tmp_path / "summary.md"
    path.write_text("x" * (MAX_SUMMARY_BYTES - len(report.encode())), encoding="utf-8")
    append_summary(run, None, None, summary(path))
    assert path.stat().st_size == MAX_SUMMARY_BYTES
    assert path.read_text(encoding="utf-8").endswith(report)


def test_a_summary_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(RunError, match="cannot be written") as caught:
        append_summary(run, None, None, summary(tmp_path / "nowhere" / "summary.md"))
    assert "\n" not in str(caught.value)
