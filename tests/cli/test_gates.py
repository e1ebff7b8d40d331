"""Gates on the command line: exit codes, what is printed, and the files of what may pass."""

from __future__ import annotations

import datetime
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import metaaudit
from metaaudit.findings import RULES
from metaaudit.gates import read_baseline, read_suppressions
from metaaudit.runs.saved import SavedRun
from tests.run_folder import instance_rows, task_rows, write_run
from tests.small import Outcome, cli, files, settings, succeeds

FOUND = {
    "harmful": 2,
    "mislabeled": 2,
    "noisy": 2,
    "contradictory": 1,
    "duplicate": 2,
    "outlier": 1,
}
"""Findings by rule in a folder that ``write_run`` writes."""

FUTURE = (datetime.date.today() + datetime.timedelta(days=30)).isoformat()


@pytest.fixture(autouse=True)
def no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run").path


def gate_lines(outcome: Outcome) -> list[str]:
    starts = ("gate ", "stale: ", "note: ")
    return [line for line in outcome.stdout.splitlines() if line.startswith(starts)]


def baseline_of(run: Path) -> Path:
    file = run.parent / "baseline.json"
    succeeds(cli("baseline", "create", run, "--out", file))
    return file


def refused(outcome: Outcome) -> str:
    assert outcome.exit_code == 2, outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stderr
    return outcome.error


def test_without_a_gate_nothing_is_said(run: Path) -> None:
    assert gate_lines(succeeds(cli("report", run))) == []


@pytest.mark.parametrize("rule", RULES)
def test_fail_on_each_rule(run: Path, rule: str) -> None:
    outcome = cli("report", run, "--fail-on", rule)
    assert outcome.exit_code == 1
    (line,) = gate_lines(outcome)
    assert line == f"gate {rule}: FAILED, {FOUND[rule]} new (0 allowed), 0 known, 0 suppressed"
    assert outcome.stderr == ""


def test_the_gate_of_the_configuration(tmp_path: Path) -> None:
    allowed = {"noisy": {"max_count": 2}, "outlier": {"max_fraction": 0.125}}
    run = write_run(tmp_path / "passes", gate=allowed).path
    assert gate_lines(succeeds(cli("report", run))) == [
        "gate noisy: passed, 2 new (2 allowed), 0 known, 0 suppressed",
        "gate outlier: passed, 1 new (1 allowed), 0 known, 0 suppressed",
    ]
    named = cli("report", run, "--fail-on", "noisy,duplicate", "--fail-on", "harmful")
    assert named.exit_code == 1
    assert [line.split(",")[0] for line in gate_lines(named)] == [
        "gate harmful: FAILED",
        "gate noisy: passed",
        "gate duplicate: FAILED",
    ]
    assert gate_lines(succeeds(cli("report", run, "--fail-on", "none"))) == []
    strict = write_run(tmp_path / "fails", gate={"noisy": {}}).path
    assert cli("report", strict).exit_code == 1


def test_reports_are_written_although_the_gate_fails(run: Path, tmp_path: Path) -> None:
    written = [tmp_path / "report.md", tmp_path / "report.json"]
    options = [part for path in written for part in ("-f", f"{path.suffix[1:]}={path}")]
    outcome = cli("report", run, *options, "--fail-on", "outlier")
    assert outcome.exit_code == 1
    assert all(path.stat().st_size for path in written)
    assert outcome.stdout.splitlines() == [
        *map(str, written),
        "gate outlier: FAILED, 1 new (0 allowed), 0 known, 0 suppressed",
    ]


def test_annotations_are_printed_before_the_gate(run: Path) -> None:
    lines = cli("report", run, "-f", "github", "--fail-on", "outlier").stdout.splitlines()
    assert lines[0].startswith("::error ")
    assert lines[-1].startswith("gate outlier: FAILED")


def test_annotations_come_with_the_job_summary(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    succeeds(cli("report", run, "-f", f"md={tmp_path / 'report.md'}"))
    assert not summary.exists()
    succeeds(cli("report", run, "-f", "github"))
    assert "# " in summary.read_text(encoding="utf-8")


def test_the_gate_is_told_on_stderr_where_a_report_may_be_on_stdout(run: Path) -> None:
    outcome = cli("report", run, "-f", "json=/dev/null", "--fail-on", "outlier")
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith("gate outlier: FAILED")


def test_a_binary_report_is_written(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "report.parquet"
    succeeds(cli("report", run, "-f", f"parquet={file}"))
    assert file.read_bytes()[:4] == b"PAR1"


def test_compare_with_another_run(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", task_rows(harmful=1)).path
    plain = succeeds(cli("report", run)).stdout
    compared = succeeds(cli("report", run, "--compare", other)).stdout
    assert compared.startswith(plain)
    assert len(compared) > len(plain)
    file = tmp_path / "report.md"
    succeeds(cli("report", run, "-f", f"md={file}"))
    before = file.read_text()
    succeeds(cli("report", run, "-f", f"md={file}", "--compare", other))
    assert file.read_text() != before
    assert "is no finished run" in refused(cli("report", run, "--compare", tmp_path / "none"))


def test_ids_cannot_steer_the_terminal(tmp_path: Path) -> None:
    tasks = task_rows()
    tasks[0] = type(tasks[0])(**{**vars(tasks[0]), "task_id": "a\x1b[2J[red]:x:\nb"})
    run = write_run(tmp_path / "run", tasks, instance_rows(tasks)).path
    baseline = baseline_of(run)
    now = write_run(tmp_path / "now", task_rows(harmful=0)).path
    shown = "a\\x1b[2J[red]:x:\\nb"
    lines = gate_lines(cli("report", now, "--fail-on", "noisy", "--baseline", baseline))
    assert f"stale: {shown} is in the baseline as noisy and no longer found" in lines
    assert shown in succeeds(cli("baseline", "diff", run, baseline)).stdout
    suppressions = tmp_path / "s.yaml"
    done = cli(
        "suppress",
        run,
        tasks[0].task_id,
        "--rule",
        "noisy",
        "--reason",
        "x",
        "--expires",
        FUTURE,
        "--file",
        suppressions,
    )
    assert "\x1b" not in succeeds(done).stdout
    assert read_suppressions(suppressions)[0].subject == tasks[0].task_id


# Baselines


def test_a_baseline_lets_a_run_pass(run: Path) -> None:
    baseline = baseline_of(run)
    every = ",".join(RULES)
    outcome = succeeds(cli("report", run, "--fail-on", every, "--baseline", baseline))
    assert [line.split(", ")[:3] for line in gate_lines(outcome)] == [
        [f"gate {rule}: passed", "0 new (0 allowed)", f"{FOUND[rule]} known"] for rule in RULES
    ]


def test_baseline_create_says_what_is_in_it(run: Path) -> None:
    file = run.parent / "new" / "baseline.json"
    shown = succeeds(cli("baseline", "create", run, "--out", file)).stdout
    assert shown == f"{file}: {', '.join(f'{n} {rule}' for rule, n in FOUND.items())}\n"
    assert len(read_baseline(file).entries) == sum(FOUND.values())
    before = files(file.parent)
    assert "exists already" in refused(cli("baseline", "create", run, "--out", file))
    assert files(file.parent) == before
    empty = write_run(run.parent / "clean", task_rows(1, harmful=0), []).path
    shown = succeeds(cli("baseline", "create", empty, "--out", run.parent / "e.json")).stdout
    assert shown.endswith("e.json: no findings\n")


def test_baseline_diff_and_update(run: Path, tmp_path: Path) -> None:
    baseline = baseline_of(run)
    before = baseline.read_bytes()
    now = write_run(tmp_path / "now", task_rows(harmful=3)).path
    lines = succeeds(cli("baseline", "diff", now, baseline)).stdout.splitlines()
    kinds = [line.split(":")[0] for line in lines]
    assert lines[-1] == f"{kinds.count('new')} new, {kinds.count('known')} known, 1 stale"
    new = [line for line in lines if line.startswith("new: ")]
    assert [line.split(" (")[0] for line in new] == [
        "new: harmful: task-2 is harmful",
        "new: noisy: task-2 is noisy",
    ]
    (stale,) = [line for line in lines if line.startswith("stale: ")]
    fingerprint = next(
        one.fingerprint
        for one in SavedRun.open(run).findings.of("duplicate")
        if one.subject == "task-2"
    )
    assert stale == f"stale: duplicate: task-2 is duplicate ({fingerprint[:12]})"
    assert baseline.read_bytes() == before

    shown = succeeds(cli("baseline", "update", now, baseline)).stdout
    assert shown == f"{baseline}: 2 added, 1 removed, {sum(FOUND.values()) - 1} kept\n"
    assert succeeds(cli("baseline", "diff", now, baseline)).stdout.endswith("0 stale\n")
    once = baseline.read_bytes()
    succeeds(cli("baseline", "update", now, baseline))
    assert baseline.read_bytes() == once


@pytest.mark.parametrize("text", [None, "{", '{"schema_version": 9}', "[]"])
@pytest.mark.parametrize("command", ["report", "update", "diff"])
def test_a_bad_baseline_ends_with_2(
    run: Path, tmp_path: Path, command: str, text: str | None
) -> None:
    file, out = tmp_path / "bad.json", tmp_path / "report.md"
    if text is not None:
        file.write_text(text)
    before = files(tmp_path)
    if command == "report":
        outcome = cli("report", run, "--fail-on", "noisy", "--baseline", file, "-f", f"md={out}")
    else:
        outcome = cli("baseline", command, run, file)
    assert "bad.json: " in refused(outcome)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fail-on", "mislabled"), "did you mean 'mislabeled'?"),
        (("--fail-on", ""), "'' is no rule"),
        (("--baseline", "b.json"), "--baseline b.json: is not used"),
        (("--suppressions", "s.yaml"), "--suppressions s.yaml: is not used"),
        (("--fail-on", "noisy", "--suppressions", "s.yaml"), "s.yaml: cannot be read"),
    ],
)
def test_bad_options_end_with_2(run: Path, options: tuple[str, ...], message: str) -> None:
    assert message in refused(cli("report", run, *options))


# Suppressions


def suppress(run: Path, *names: str, **options: str) -> Outcome:
    chosen = {"reason": "looked at it", "expires": FUTURE, "file": str(run.parent / "s.yaml")}
    parts = [part for key, value in (chosen | options).items() for part in (f"--{key}", value)]
    return cli("suppress", run, *names, *parts)


def test_suppressed_findings_pass(run: Path) -> None:
    file = run.parent / "s.yaml"
    first, second = SavedRun.open(run).findings.of("mislabeled")
    shown = succeeds(suppress(run, first.subject)).stdout
    assert shown == (
        f"{file}: mislabeled {first.subject!r} ({first.fingerprint[:12]}) until {FUTURE}\n"
    )
    options = ("--fail-on", "mislabeled", "--suppressions", file)
    outcome = cli("report", run, *options)
    assert outcome.exit_code == 1
    assert gate_lines(outcome)[0].endswith("1 new (0 allowed), 0 known, 1 suppressed")
    succeeds(suppress(run, second.fingerprint[:8]))
    assert gate_lines(succeeds(cli("report", run, *options)))[0].endswith("2 suppressed")
    assert [one.reason for one in read_suppressions(file)] == ["looked at it"] * 2


def test_the_default_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    done = cli("suppress", run, "task-5", "--reason", "x", "--expires", FUTURE)
    succeeds(done)
    assert (run.parent / "metaaudit-suppressions.yaml").is_file()


TODAY = datetime.date.today().isoformat()


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["task-5"], {"reason": " "}, "--reason: is empty"),
        (["task-5"], {"expires": TODAY}, "is not in the future"),
        (["task-5"], {"expires": "2001-01-01"}, "is not in the future"),
        (["task-5"], {"expires": "soon"}, "'soon' is no date; expected YYYY-MM-DD"),
        (["task-5"], {"expires": ""}, "is no date"),
        (["task-0"], {}, "fits 2: harmful 'task-0' ("),
        (["task-55"], {}, "did you mean 'task-5'"),
        (["task-5", "task-9"], {}, "finding 'task-9': is none"),
        (["task-5"], {"rule": "outliers"}, "did you mean 'outlier'?"),
        (["task-5"], {"rule": "noisy"}, "is none of the run's 2 noisy findings"),
    ],
)
def test_what_cannot_be_suppressed(
    run: Path, names: list[str], options: dict[str, str], message: str
) -> None:
    before = files(run.parent)
    assert message in refused(suppress(run, *names, **options))
    assert files(run.parent) == before


def test_reason_and_expiry_are_required(run: Path) -> None:
    for given in (("--reason", "x"), ("--expires", FUTURE)):
        assert cli("suppress", run, "task-5", *given).exit_code == 2


def test_suppressions_are_not_written_over_the_run(run: Path) -> None:
    before = files(run)
    assert "of the run itself" in refused(suppress(run, "task-5", file=str(run / "tasks.csv")))
    assert files(run) == before


# Scoring


@pytest.fixture
def scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """``score`` with a configuration's gate; the scores are made up, and quick."""

    def made_up(config: Any, folder: Path, messages: object) -> None:
        write_run(folder, gate=config.gate.model_dump(mode="json"))

    module = types.ModuleType("metaaudit.audit")
    module.run = made_up  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "metaaudit.audit", module)
    monkeypatch.setattr(metaaudit, "audit", module, raising=False)

    def score(gate: dict[str, Any], *options: object) -> Outcome:
        config = tmp_path / "metaaudit.yaml"
        config.write_text(yaml.safe_dump(settings() | {"gate": gate}))
        return cli("score", config, "--run", tmp_path / "run", *options)

    return score


@pytest.mark.parametrize(
    ("gate", "options", "exit_code", "gates"),
    [
        ({}, (), 0, []),
        ({"noisy": {}}, (), 1, ["noisy: FAILED"]),
        ({"noisy": {"max_count": 2}}, (), 0, ["noisy: passed"]),
        ({"noisy": {}}, ("--fail-on", "none"), 0, []),
        ({"noisy": {}}, ("--fail-on", "harmful"), 1, ["harmful: FAILED"]),
        ({}, ("--fail-on", "harmful, outlier"), 1, ["harmful: FAILED", "outlier: FAILED"]),
    ],
)
def test_score_ends_with_the_gate(
    scoring: Callable[..., Outcome],
    tmp_path: Path,
    gate: dict[str, Any],
    options: tuple[str, ...],
    exit_code: int,
    gates: list[str],
) -> None:
    outcome = scoring(gate, *options)
    assert outcome.exit_code == exit_code, outcome.stderr
    assert [line.split(",")[0] for line in gate_lines(outcome)] == [f"gate {one}" for one in gates]
    assert "harmful" in outcome.stdout.splitlines()[0] or "tasks" in outcome.stdout
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert ("noisy" in manifest["config"]["gate"]) == bool(gate)


def test_a_baseline_of_the_configuration_lies_beside_it(
    scoring: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "before").path
    succeeds(cli("baseline", "create", run, "--out", tmp_path / "known.json"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = scoring({"noisy": {}, "baseline": "known.json"})
    assert gate_lines(succeeds(outcome)) == [
        "gate noisy: passed, 0 new (0 allowed), 2 known, 0 suppressed"
    ]
    assert gate_lines(succeeds(cli("report", tmp_path / "run"))) == gate_lines(outcome)


@pytest.mark.parametrize(
    ("gate", "options", "message"),
    [
        ({"noisy": {}, "baseline": "none.json"}, (), "none.json: cannot be read"),
        ({"noisy": {}, "suppressions": "none.yaml"}, (), "none.yaml: cannot be read"),
        ({}, ("--fail-on", "noisy", "--baseline", "none.json"), "none.json: cannot be read"),
        ({}, ("--fail-on", "noise"), "did you mean 'noisy'?"),
        ({}, ("--baseline", "none.json"), "is not used"),
    ],
)
def test_what_is_wrong_with_a_gate_is_told_before_scoring(
    scoring: Callable[..., Outcome],
    tmp_path: Path,
    gate: dict[str, Any],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert message in refused(scoring(gate, *options))
    assert not (tmp_path / "run").exists()


# The sample for CI, and the hook


ROOT = Path(__file__).parents[2]


def test_the_samples_baseline_is_one_and_its_workflow_reports_in_any_case() -> None:
    folder = ROOT / "sample_configs" / "ci"
    assert read_baseline(folder / "baseline.json").entries == ()
    steps = yaml.safe_load((folder / "workflow.yml").read_text("utf-8"))["jobs"]["metaaudit"][
        "steps"
    ]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("metaaudit")]
    assert [command.split()[1] for command in commands] == ["validate", "score", "report"]
    assert "--fail-on none" in commands[1] and "--fail-on" not in commands[2]
    after = steps[[step.get("run") for step in steps].index(commands[2]) + 1 :]
    assert after and all("!cancelled()" in step["if"] for step in after)


def test_the_samples_report_step_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "sample_configs" / "ci"
    gate = yaml.safe_load((folder / "metaaudit.yaml").read_text("utf-8"))["gate"]
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "baseline.json").write_bytes((folder / "baseline.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "audit", gate=gate)
    steps = yaml.safe_load((folder / "workflow.yml").read_text("utf-8"))["jobs"]["metaaudit"][
        "steps"
    ]
    (command,) = [step["run"] for step in steps if " report " in step.get("run", "")]
    outcome = cli(*command.split()[1:])
    assert outcome.exit_code == 1
    assert [line.split(",")[0] for line in gate_lines(outcome)] == [
        "gate harmful: FAILED",
        "gate mislabeled: FAILED",
        "gate contradictory: FAILED",
    ]
    assert {"audit.html", "audit.sarif", "audit.xml"} <= set(files(tmp_path))


def test_the_hook_calls_a_command_that_takes_all_files_at_once() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    program, command = hook["entry"].split()
    assert program == "metaaudit"
    assert "CONFIG..." in succeeds(cli(command, "--help")).stdout
    names = {"metaaudit.yaml": True, "ci/metaaudit.yml": True, "xmetaaudit.yaml": False}
    assert {name: bool(re.search(hook["files"], name)) for name in names} == names
