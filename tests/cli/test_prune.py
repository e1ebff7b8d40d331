"""``metaaudit prune`` from its options to the files it writes."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest

from metaaudit.config.tasks import ValuesConfig
from metaaudit.inputs.episodes import read_episodes
from metaaudit.inputs.task_set import TaskSet
from metaaudit.prune_app import PruneBy
from metaaudit.pruning.plan import By
from metaaudit.runs.atomic import write_text
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow, csv_text
from tests.cli.formats import change_settings, write_good
from tests.pruning.flagged import (
    NOISY,
    audited_case,
    change_manifest,
    copied,
    flag,
    plan_in,
    refused,
)
from tests.run_folder import instance_rows, task_rows, write_run
from tests.small import Case, cli, files, succeeds
from tests.test_layers import NO_TORCH, in_a_new_process

Args = tuple[object, ...]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return audited_case(tmp_path_factory.mktemp("audited"))


@pytest.fixture
def case(audited: Case, tmp_path: Path) -> Case:
    return copied(audited, tmp_path)


def tasks_of(path: Path) -> TaskSet:
    """Episodes as written by the program."""
    return read_episodes(path, ValuesConfig())


DROPS = [
    ("tasks", "influence"),
    ("tasks", "harmful"),
    ("tasks", "label_noise"),
    ("tasks", "noisy"),
    ("tasks", "contradictory"),
    ("tasks", "outlier"),
    ("instances", "mislabel_score"),
    ("instances", "mislabeled"),
]


@pytest.mark.parametrize(("drop", "by"), DROPS)
def test_what_is_planned_is_what_goes(case: Case, drop: str, by: str) -> None:
    options = ("--drop", drop, "--by", by, "--max-fraction", 0.5)
    told = succeeds(cli("prune", case.run, *options)).stdout
    plan = plan_in(case.run)
    assert plan["items"]
    assert told.startswith(f"drop {len(plan['items'])} of {plan['counts']['total']} {drop}")
    new = case.folder / "new.h5"
    succeeds(cli("prune", case.run, *options, "--apply", "--out", new))
    assert plan_in(case.run) == plan
    before, after = tasks_of(case.folder / "train.npz"), tasks_of(new)
    if drop == "tasks":
        gone = {item["task_id"] for item in plan["items"]}
        assert after.task_ids == [one for one in before.task_ids if one not in gone]
    else:
        assert after.n_instances == before.n_instances - len(plan["items"])


def test_labels_are_changed_in_place_of_dropping(case: Case) -> None:
    new = case.folder / "new.npz"
    options = ("--relabel", "--max-fraction", 1, "--apply", "--out", new)
    told = succeeds(cli("prune", case.run, *options)).stdout
    items = plan_in(case.run)["items"]
    assert len(items) == 4
    assert told.startswith("relabel 4 of ")
    assert f"{items[0]['label']} -> {items[0]['new_label']}: mislabeled" in told
    before, after = tasks_of(case.folder / "train.npz"), tasks_of(new)
    changed = {
        (task.task_id, name, index): (int(old), int(new))
        for task, other in zip(before.tasks, after.tasks, strict=True)
        for name in ("support", "query")
        for index, (old, new) in enumerate(zip(task.labels(name), other.labels(name), strict=True))
        if old != new
    }
    assert changed == {
        (item["task_id"], item["set"], item["index"]): (item["label"], item["new_label"])
        for item in items
    }
    succeeds(case.cli("score", "--run", case.folder / "again", "--set", "tasks.train=new.npz"))


def test_an_edited_plan_is_applied_as_it_stands(case: Case) -> None:
    succeeds(cli("prune", case.run, "--relabel", "--max-fraction", 1))
    plan = plan_in(case.run)
    dropped, other, *_ = plan["items"]
    dropped |= {"kind": "drop", "new_label": None}
    (chosen,) = {0, 1, 2} - {other["label"], other["new_label"]}
    other["new_label"] = chosen
    plan["items"] = [dropped, other]
    edited, new = case.folder / "edited.json", case.folder / "new.h5"
    text = json.dumps(plan)
    edited.write_text(text, encoding="utf-8")
    before = files(case.folder)
    told = succeeds(cli("prune", case.run, "--from-plan", edited, "--apply", "--out", new)).stdout
    assert told.startswith("drop 1 and relabel 1 of ")
    assert {name: value for name, value in files(case.folder).items() if name != new.name} == before
    changed = {task.task_id: task for task in tasks_of(new).tasks}
    original = {task.task_id: task for task in tasks_of(case.folder / "train.npz").tasks}
    name, task_id = other["set"], other["task_id"]
    index = other["index"] - (task_id == dropped["task_id"] and name == dropped["set"])
    assert changed[task_id].labels(name)[index] == chosen
    sizes = [sum(sum(task.shape) for task in tasks.values()) for tasks in (original, changed)]
    assert sizes[0] - sizes[1] == 1


def test_a_plan_can_be_checked_without_writing_anything(case: Case) -> None:
    succeeds(cli("prune", case.run, "--relabel", "--max-fraction", 1, "--plan", case.run / "p"))
    before = files(case.folder)
    told = succeeds(cli("prune", case.run, "--from-plan", case.run / "p")).stdout
    assert told.startswith("relabel 4 of ")
    assert files(case.folder) == before


FORMATS: dict[str, dict[str, Any]] = {
    "own .npz": {},
    "own .h5": {"rename": {"features": "features"}},
    "joined .npz": {},
    "maml-pytorch .h5": {"tasks.image": {"mean": [0.5], "std": [2.0]}},
    "image-folder": {},
    "omniglot zip": {},
    "factory": {},
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_commands_that_it_prints_work(tmp_path: Path, name: str) -> None:
    case = write_good(tmp_path / "case", name)
    changes = {key: value for key, value in FORMATS[name].items() if key != "rename"}
    change_settings(case, {"training": {"epochs": 1, "batch": 2}, **changes})
    run = case.score()
    flag(run)
    if "rename" in FORMATS[name]:  # the new checkpoint has none of the names that it is about
        change_settings(case, {"rename": {"old.": ""}})
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["config"]["rename"] = {"old.": ""}
        write_text(run / "manifest.json", json.dumps(manifest))
    new = tmp_path / "a folder: it's #1" / "new.h5"
    options = ("--drop", "tasks", "--by", "noisy", "--max-fraction", 0.5, "--apply", "--out", new)
    told = succeeds(cli("prune", run, *options)).stdout
    commands = [line for line in told.splitlines() if line.startswith("  metaaudit ")]
    assert [line.split()[1] for line in commands] == ["train", "score"]
    for line in commands:
        _, *args = shlex.split(line)
        succeeds(cli(*(case.config if arg == "CONFIG" else arg for arg in args)))
    before, after = (SavedRun.open(path) for path in (run, new.with_name("new-retrained-run")))
    assert len(after.tasks) == len(before.tasks) - 1
    # The evaluation is the same, and the tasks that are left look to the model as they did.
    assert after.manifest["data"]["eval"]["n_tasks"] == before.manifest["data"]["eval"]["n_tasks"]
    scored = succeeds(case.cli("score", "--run", tmp_path / "same", *shared(commands[1], case)))
    assert scored.exit_code == 0
    same = {row.task_id: row.outer_loss for row in SavedRun.open(tmp_path / "same").tasks}
    for row in before.tasks:
        if row.task_id in same:
            assert row.outer_loss == pytest.approx(same[row.task_id], rel=1e-5)
    measured = SavedRun.open(tmp_path / "same").manifest["evaluation"]
    assert measured == pytest.approx(before.manifest["evaluation"], rel=1e-5)


def shared(command: str, case: Case) -> list[str]:
    """The settings of a command, but for the checkpoint, which is the old one."""
    args = shlex.split(command)
    given = [args[place + 1] for place, arg in enumerate(args) if arg == "--set"]
    kept = [one for one in given if not one.startswith("checkpoint=")]
    return [word for one in kept for word in ("--set", one)]


def test_both_can_be_written_at_once(case: Case) -> None:
    new, path = case.folder / "new.h5", case.folder / "new.safetensors"
    options = ("--drop", "tasks", "--by", "noisy", "--max-fraction", 0.5)
    written = ("--apply", "--out", new, "--edit-checkpoint", path)
    told = succeeds(cli("prune", case.run, *options, *written)).stdout
    assert f"score CONFIG --run {path.with_name('new-run')} --set checkpoint={path}" in told
    assert new.is_file()
    assert path.is_file()


BAD: dict[str, tuple[Args, str]] = {
    "nothing": ((), "prune: does not say what to change"),
    "no decision": (("--drop", "tasks", "--max-fraction", 0.5), "--drop: does not say what"),
    "no fraction": (NOISY[:4], "--max-fraction: is missing"),
    "relabel by": (("--relabel", *NOISY[2:]), "--relabel: cannot be combined with --by"),
    "relabel and drop": (("--relabel", *NOISY), "--relabel: cannot be combined with --drop"),
    "min per class": ((*NOISY, "--min-per-class", 0), "--min-per-class: is 0"),
    "plan of no run": (("--from-plan", "none.json"), "none.json: cannot be read"),
    "plan and drop": (("--from-plan", "p.json", *NOISY), "cannot be combined with --drop"),
    "plan and relabel": (("--from-plan", "p.json", "--relabel"), "cannot be combined with --rel"),
    "plan and plan": (("--from-plan", "p.json", "--plan", "q.json"), "combined with --plan"),
    "edit of labels": (
        ("--relabel", "--max-fraction", 1, "--edit-checkpoint", "new.safetensors"),
        "--edit-checkpoint: cannot follow a changed label",
    ),
    "edit of nothing": (
        ("--drop", "tasks", "--by", "duplicate", *NOISY[4:], "--edit-checkpoint", "n.safetensors"),
        "has nothing to remove",
    ),
    "edit in place": (
        (*NOISY, "--edit-checkpoint", "checkpoint.safetensors"),
        "checkpoint.safetensors: exists already",
    ),
    "edit to another format": ((*NOISY, "--edit-checkpoint", "new.pt"), "has the suffix '.pt'"),
    "edit is the plan": (
        (*NOISY, "--plan", "n.safetensors", "--edit-checkpoint", "n.safetensors"),
        "is the file of the plan too",
    ),
}


@pytest.mark.parametrize(("options", "part"), BAD.values(), ids=BAD)
def test_bad_options(case: Case, options: Args, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    assert part in refused(case, *options)


def test_a_guard_that_stops_the_plan_writes_nothing(case: Case) -> None:
    options = ("--drop", "instances", "--by", "mislabel_score", "--max-fraction", 1)
    flagged = [
        dataclasses.replace(row, mislabeled=row.mislabeled and row.set == "support")
        for row in SavedRun.open(case.run).instances
    ]
    write_text(case.run / "instances.csv", csv_text(InstanceRow, flagged))
    count = sum(row.mislabeled for row in flagged)
    assert count
    told = refused(case, *options, "--min-per-class", 2)
    assert f"guard: keeps all {count} candidates" in told


def test_the_evaluation_tasks_are_not_written_over(case: Case) -> None:
    change_manifest(case, lambda m: m["config"]["tasks"].update(image={"invert": True}))
    (case.folder / "new.eval.h5").write_bytes(b"mine")
    args = (*NOISY, "--apply", "--out", case.folder / "new.h5")
    assert "new.eval.h5: exists already" in refused(case, *args)
    (case.folder / "new.eval.h5").unlink()
    plan = ("--plan", case.folder / "new.eval.h5")
    assert "new.eval.h5: is the file of the plan too" in refused(case, *args, *plan)


def test_foreign_ids_do_not_steer_the_terminal(tmp_path: Path) -> None:
    evil = "task\x1b[31m[bold]::%0A"
    tasks = [
        dataclasses.replace(row, task_id=evil if row.rank == 1 else row.task_id)
        for row in task_rows()
    ]
    write_run(tmp_path / "run", tasks, instance_rows(tasks))
    told = succeeds(cli("prune", tmp_path / "run", "--drop", "tasks", "--by", "noisy", *NOISY[4:]))
    assert r"task\x1b[31m[bold]::%0A: noisy" in told.stdout
    assert "\x1b" not in told.stdout


@pytest.mark.parametrize("drop", [("--drop", "tasks", "--by", "duplicate"), ("--relabel",)])
def test_planning_imports_no_torch(tmp_path: Path, drop: Args) -> None:
    run = tmp_path / "run"
    write_run(run)
    in_a_new_process(NO_TORCH, "prune", run, *drop, "--max-fraction", 0.5)
    in_a_new_process(NO_TORCH, "prune", run, "--from-plan", run / "prune.json")


def test_the_command_line_offers_what_the_plan_knows() -> None:
    assert get_args(PruneBy) == get_args(By)


NOISY = ("--drop", "tasks", "--by", "noisy", "--max-fraction", 0.5)


def test_a_plan_that_was_edited_is_not_written_over(case: Case) -> None:
    succeeds(cli("prune", case.run, *NOISY))
    succeeds(cli("prune", case.run, *NOISY))  # the same plan once more
    plan = case.run / "prune.json"
    edited = plan.read_text().replace('"note"', ' "note"')
    assert edited != plan.read_text()
    plan.write_text(edited)
    outcome = cli("prune", case.run, *NOISY)
    assert outcome.exit_code == 2
    assert "prune.json: holds another plan" in outcome.error
    assert plan.read_text() == edited


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "train.npz", "eval.npz"])
def test_what_the_run_was_made_from_is_never_written_over(
    audited: Case, case: Case, name: str
) -> None:
    path = audited.folder / name  # where the manifest of the copied run says it is
    before = path.read_bytes()
    for outcome in (
        cli("prune", case.run, *NOISY, "--plan", path),
        cli("report", case.run, "-f", f"md={path}"),
    ):
        assert outcome.exit_code == 2
        assert f"{name}: is what the run was made from" in outcome.error
        assert path.read_bytes() == before


def test_a_plan_needs_a_file_of_its_own(case: Case) -> None:
    outcome = cli("prune", case.run, *NOISY, "--plan", "/dev/stdout")
    assert outcome.exit_code == 2
    assert "/dev/stdout: is no regular file" in outcome.error
