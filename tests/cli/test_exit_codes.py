"""How commands end: one clear line for what the user can mend, and the exit code for the rest."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from metaaudit import audit, exit_codes, label_stages, meta_train, stages
from metaaudit.inputs.checkpoints import read_checkpoint, write_checkpoint
from metaaudit.runs.saved import FILES
from metaaudit.training import MetaTrainer
from tests.small import Case, cli, files, settings, succeeds, write_case

Args = tuple[object, ...]
Break = Callable[[Case], Args | None]
"""Breaks something in a case; may return the whole command line to use in place of ``score``."""


class Evil:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["METAAUDIT_TEST_SIDE_EFFECT"],)


def change_config(changes: dict[str, Any]) -> Break:
    def apply(case: Case) -> None:
        case.config.write_text(yaml.safe_dump(settings(changes)), encoding="utf-8")

    return apply


def write_config(text: str) -> Break:
    def apply(case: Case) -> None:
        case.config.write_text(text, encoding="utf-8")

    return apply


def replace_text(old: str, new: str) -> Break:
    def apply(case: Case) -> None:
        text = case.config.read_text(encoding="utf-8")
        assert old in text
        case.config.write_text(text.replace(old, new), encoding="utf-8")

    return apply


def change_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Break:
    def apply(case: Case) -> None:
        checkpoint = read_checkpoint(case.checkpoint)
        weights = dict(checkpoint.weights)
        change(weights)
        write_checkpoint(case.checkpoint, weights, checkpoint.metadata)

    return apply


def change_episodes(change: Callable[[dict[str, np.ndarray]], Any], name: str = "train") -> Break:
    def apply(case: Case) -> None:
        with np.load(case.folder / f"{name}.npz") as file:
            content = dict(file)
        change(content)
        np.savez(case.folder / f"{name}.npz", **content)

    return apply


def remove(name: str) -> Break:
    return lambda case: (case.folder / name).unlink()


def truncated_checkpoint(case: Case) -> None:
    case.checkpoint.write_bytes(case.checkpoint.read_bytes()[:-7])


def pickle_with_code(case: Case) -> Args:
    (case.folder / "weights.pt").write_bytes(pickle.dumps({"a": Evil()}))
    return ("score", case.config, "--run", case.run, "--set", "checkpoint=weights.pt")


def archive_with_code(case: Case) -> Args:
    torch.save({"a": Evil()}, case.folder / "weights.pt")
    return ("score", case.config, "--run", case.run, "--set", "checkpoint=weights.pt")


def longer_first(weights: dict[str, torch.Tensor]) -> None:
    name = min(weights)
    weights[name] = torch.cat([weights[name], weights[name]])


def poison(weights: dict[str, torch.Tensor]) -> None:
    weights[max(weights)].view(-1)[3] = float("nan")


def existing_run(case: Case) -> None:
    case.run.mkdir()
    (case.run / "notes.txt").write_text("mine")


def run_is_a_file(case: Case) -> None:
    case.run.write_text("mine")


def parent_is_a_file(case: Case) -> Args:
    (case.folder / "file").write_text("mine")
    return ("score", case.config, "--run", case.folder / "file" / "run")


def cache_is_a_file(case: Case) -> None:
    Path(os.environ["METAAUDIT_CACHE_DIR"]).write_text("mine")


def unreadable_zip(case: Case) -> None:
    (case.folder / "omniglot").mkdir()
    (case.folder / "omniglot" / "small.zip").write_bytes(b"PK\x03\x04 is how a zip begins")
    tasks = {
        "format": "omniglot",
        "root": "omniglot",
        "train": {"tasks": 2, "classes": 5},
        "eval": {"tasks": 2},
    }
    case.config.write_text(yaml.safe_dump(settings({"tasks": tasks})), encoding="utf-8")


def unreadable_image(case: Case) -> None:
    unreadable_zip(case)
    with zipfile.ZipFile(case.folder / "omniglot" / "small.zip", "w") as archive:
        for character in range(12):
            for drawer in range(10):
                name = f"Aleph/character{character:02d}/{character:04d}_{drawer:02d}.png"
                archive.writestr(name, b"no image")


def with_command(*command: object) -> Break:
    """A whole command line in which CONFIG and FOLDER stand for those of the case."""

    def apply(case: Case) -> Args:
        place = {"CONFIG": case.config, "FOLDER": case.folder}
        return tuple(place.get(str(part), part) for part in command)

    return apply


def score_with(*options: str) -> Break:
    return lambda case: (
        *("score", case.config, "--run", case.run),
        *(part for option in options for part in ("--set", option)),
    )


BAD: dict[str, tuple[Break, str]] = {
    "no config": (remove("metaaudit.yaml"), "metaaudit init"),
    "empty config": (write_config(""), "is empty"),
    "no YAML": (write_config("model: [1"), "cannot be read as YAML"),
    "unknown key": (change_config({"influence.dampign": 1}), "did you mean 'damping'?"),
    "wrong type": (change_config({"learner.steps": "three"}), "learner.steps: got 'three'"),
    "bad override": (score_with("learner.stepz=2"), "did you mean 'steps'?"),
    "override without value": (score_with("learner.steps"), "--set section.key=value"),
    "no checkpoint": (remove("checkpoint.safetensors"), "checkpoint.safetensors: cannot be read"),
    "truncated checkpoint": (truncated_checkpoint, "no whole safetensors file"),
    "pickle with code": (pickle_with_code, "torch.save(model.state_dict()"),
    "archive with code": (archive_with_code, "asks to run"),
    "missing tensor": (
        change_weights(lambda w: w.pop(min(w))),
        "does not fit the model: missing",
    ),
    "extra tensor": (
        change_weights(lambda w: w.update(more=torch.ones(3))),
        "unexpected more [3]",
    ),
    "mis-shaped tensor": (change_weights(longer_first), "wrong shape"),
    "NaN weights": (change_weights(poison), "1 of "),
    "integer weights": (
        change_weights(lambda w: w.update({n: t.int() for n, t in w.items()})),
        "floating point",
    ),
    "no evaluation tasks": (remove("eval.npz"), "eval.npz: does not exist"),
    "label out of range": (
        change_episodes(lambda a: a["query_y"].__setitem__((2, 1), 99)),
        "task 'train-0002', query 1: has label 99",
    ),
    "negative label": (
        change_episodes(lambda a: a["support_y"].__setitem__((0, 0), -2)),
        "has label -2",
    ),
    "float labels": (
        change_episodes(lambda a: a.update(support_y=a["support_y"].astype(float))),
        "support_y",
    ),
    "unequal numbers of tasks": (
        change_episodes(lambda a: a.update(query_x=a["query_x"][:-1])),
        "query_x",
    ),
    "no tasks": (
        change_episodes(lambda a: a.update({name: values[:0] for name, values in a.items()})),
        "train.npz",
    ),
    "empty support": (
        change_episodes(lambda a: a["support_y"].__setitem__(1, -1)),
        "task 'train-0001': its support set is empty",
    ),
    "NaN input": (
        change_episodes(
            lambda a: a.update({n: a[n] * np.float32("nan") for n in ("support_x", "query_x")})
        ),
        "holds NaN or infinity",
    ),
    "pickled array": (
        change_episodes(lambda a: a.update(task_id=np.array([{}] * 8, dtype=object))),
        "holds Python objects",
    ),
    "other inputs in evaluation": (
        change_episodes(
            lambda a: a.update({n: a[n][..., :-1] for n in ("support_x", "query_x")}), "eval"
        ),
        "(1, 8, 7)",
    ),
    "model too small": (change_config({"model.ways": 2}), "ways"),
    "training with running statistics": (
        with_command("train", "CONFIG", "--overwrite", "--set", "model.statistics=running"),
        "is running, which are of a checkpoint",
    ),
    "unreadable zip": (unreadable_zip, "small.zip"),
    "unreadable image": (unreadable_image, ".png"),
    "existing run": (existing_run, "exists already"),
    "run is a file": (run_is_a_file, "exists already"),
    "parent is a file": (parent_is_a_file, "cannot be written"),
    "run with a long name": (
        with_command("score", "CONFIG", "--run", "n" * 300),
        "cannot be written (File name too long)",
    ),
    "cache is a file": (cache_is_a_file, "set METAAUDIT_CACHE_DIR"),
    "no curvature": (
        score_with("influence.damping=0", "training.weight_decay=0"),
        "leaves a singular Hessian",
    ),
    "no cuda": (with_command("validate", "CONFIG", "--device", "cuda"), "use --device auto"),
    "validate without checkpoint": (
        with_command("validate", "CONFIG", "--set", "checkpoint=none.pt"),
        "none.pt: cannot be read",
    ),
    "train over a checkpoint": (with_command("train", "CONFIG"), "use --resume or --overwrite"),
    "train a state dict": (
        with_command("train", "CONFIG", "--set", "checkpoint=new.pt"),
        "ending in .safetensors",
    ),
    "resume without a state": (
        with_command("train", "CONFIG", "--resume", "--set", "checkpoint=new.safetensors"),
        "new.training.safetensors: cannot be read",
    ),
    "resume with another recipe": (
        with_command("train", "CONFIG", "--resume", "--set", "training.lr=0.5"),
        "another recipe",
    ),
    "init over a config": (with_command("init", "FOLDER"), "exists already"),
    "report of no run": (with_command("report", "FOLDER"), "is no finished run"),
    "demo in a folder in use": (with_command("demo", "FOLDER"), "use --overwrite"),
    "demo over other work": (
        with_command("demo", "FOLDER", "--overwrite"),
        "was not written by a demo",
    ),
}


def one_line(case: Case, args: Args) -> str:
    """The message of a command that must end with 2, leave no trace and print no traceback."""
    everything = case.folder.parent
    cache = Path(os.environ["METAAUDIT_CACHE_DIR"])

    def found() -> dict[str, bytes | None]:
        paths = files(everything).items()
        return {name: data for name, data in paths if not name.startswith(f"{cache.name}/")}

    before = found()
    outcome = cli(*args)
    after = found()
    after.pop(cache.name, None)
    before.pop(cache.name, None)
    assert after == before
    assert outcome.exit_code == 2, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    return outcome.error


@pytest.mark.parametrize(("broken", "part"), BAD.values(), ids=BAD)
@pytest.mark.skipif(torch.cuda.is_available(), reason="one of the cases asks for a missing GPU")
def test_bad_input_gives_one_line_and_leaves_no_trace(
    trained_case: Case,
    broken: Break,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("METAAUDIT_TEST_SIDE_EFFECT", str(tmp_path / "side-effect"))
    args = broken(trained_case)
    args = args or ("score", trained_case.config, "--run", trained_case.run)
    assert part in one_line(trained_case, args)
    assert not (tmp_path / "side-effect").exists()


def test_the_bad_pickle_does_run_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METAAUDIT_TEST_SIDE_EFFECT", str(tmp_path / "side-effect"))
    pickle.loads(pickle.dumps({"a": Evil()}))
    assert (tmp_path / "side-effect").is_dir()


@pytest.mark.parametrize("command", ["validate", "score --dry-run", "score"])
def test_failure_leaves_no_parents_of_the_run(trained_case: Case, command: str) -> None:
    trained_case.checkpoint.unlink()
    name, *options = command.split()
    run = () if name == "validate" else ("--run", trained_case.folder / "a" / "b" / "run")
    one_line(trained_case, (name, trained_case.config, *run, *options))


def test_run_is_not_the_current_folder(
    trained_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    args = ("score", trained_case.config, "--run", ".")
    assert "is the current folder" in one_line(trained_case, args)


# Saved runs.

DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (lambda run: (run / "manifest.json").unlink(), "is no finished run"),
    "no tasks": (lambda run: (run / "tasks.csv").unlink(), "tasks.csv: cannot be read"),
    "no instances": (lambda run: (run / "instances.csv").unlink(), "instances.csv"),
    "no findings": (lambda run: (run / "findings.json").unlink(), "findings.json"),
    "no scores": (lambda run: (run / "scores.h5").unlink(), "scores.h5: is damaged"),
    "cut manifest": (lambda run: cut(run / "manifest.json"), "manifest.json"),
    "cut tasks": (lambda run: cut(run / "tasks.csv"), "tasks.csv"),
    "cut scores": (lambda run: cut(run / "scores.h5"), "scores.h5: is damaged"),
    "other version": (lambda run: other_version(run), "has schema version 99"),
}


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 3])


def other_version(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))


@pytest.mark.parametrize(("damage", "part"), DAMAGE.values(), ids=DAMAGE)
def test_report_of_a_damaged_run(
    scored_case: Case, tmp_path: Path, damage: Callable[[Path], Any], part: str
) -> None:
    case = Case(tmp_path / "copy")
    shutil.copytree(scored_case.run, case.run)
    damage(case.run)
    html = case.folder / "report.html"
    assert part in one_line(case, ("report", case.run, "-f", f"html={html}"))


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("htm=x.html", "did you mean 'html'?"),
        ("pdf=x.pdf", "one of html, md, json, csv"),
        ("html", "names no file"),
        ("html=", "names no file"),
    ],
)
def test_unknown_format(
    scored_case: Case, tmp_path: Path, wanted: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "report.md"
    case = Case(tmp_path / "none")
    args = ("report", scored_case.run, "-f", f"md={good}", "-f", wanted)
    assert part in one_line(case, args)


@pytest.mark.parametrize("name", ["file/report.md", f"{'n' * 300}.md", "folder"])
def test_report_that_cannot_be_written(scored_case: Case, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    args = ("report", scored_case.run, "-f", f"md={tmp_path / name}")
    assert "cannot be written" in one_line(Case(tmp_path / "none"), args)


@pytest.mark.parametrize("name", FILES)
def test_report_and_plan_do_not_destroy_the_run(scored_case: Case, name: str) -> None:
    own = scored_case.run / name
    case = Case(scored_case.run)
    for args in (
        ("report", scored_case.run, "-f", f"csv={own}"),
        ("prune", scored_case.run, *PRUNE, "--plan", own),
    ):
        assert "is a file of the run itself" in one_line(case, args)


PRUNE = ("--drop", "instances", "--by", "mislabel_score", "--max-fraction", 0.1)

BAD_PRUNES: dict[str, tuple[Args, str]] = {
    "fraction": ((*PRUNE[:-1], 1.5), "above 0 and at most 1"),
    "combination": (("--drop", "instances", "--by", "label_noise", *PRUNE[4:]), "combined"),
    "suffix": ((*PRUNE, "--apply", "--out", "new.txt"), "has the suffix '.txt'"),
    "existing file": ((*PRUNE, "--apply", "--out", "train.npz"), "exists already"),
    "plan is a folder": (
        (*PRUNE, "--plan", ".", "--apply", "--out", "new.npz"),
        "is a folder",
    ),
    "plan is the data": (
        (*PRUNE, "--plan", "new.npz", "--apply", "--out", "./new.npz"),
        "is the file of the plan too",
    ),
    "apply without out": ((*PRUNE, "--apply"), "--out NEW"),
    "out without apply": ((*PRUNE, "--out", "new.npz"), "add --apply"),
}


@pytest.mark.parametrize(("options", "part"), BAD_PRUNES.values(), ids=BAD_PRUNES)
def test_bad_prune(
    trained_case: Case, options: Args, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained_case.folder)
    run = trained_case.score()
    assert part in one_line(trained_case, ("prune", run, *options))


def test_prune_of_changed_data(trained_case: Case) -> None:
    run = trained_case.score()
    change_episodes(lambda a: a["query_x"].__setitem__((0, 0, 0, 0, 0), 7))(trained_case)
    args = ("prune", run, *PRUNE, "--apply", "--out", trained_case.folder / "new.npz")
    assert "have changed on disk" in one_line(trained_case, args)


def test_plan_is_written_before_the_data(
    trained_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_case.score()
    new = trained_case.folder / "new.npz"
    monkeypatch.setattr("metaaudit.prune.write_tasks", raising(OSError(28, "full", str(new))))
    outcome = cli("prune", run, *PRUNE, "--apply", "--out", new)
    assert outcome.exit_code == 3
    assert "no space left" in outcome.error
    assert (run / "prune.json").is_file()
    assert not new.exists()


def test_prune_of_a_run_with_another_configuration(trained_case: Case) -> None:
    run = trained_case.score()
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"config": {}}))
    args = ("prune", run, *PRUNE, "--apply", "--out", trained_case.folder / "new.npz")
    assert "holds a configuration that cannot be used" in one_line(trained_case, args)


@pytest.mark.parametrize("args", [("score",), ("scor",), ("score", "x.yaml"), ("train", "--no")])
def test_bad_usage(args: Args) -> None:
    outcome = cli(*args)
    assert outcome.exit_code == 2
    assert "Usage: " in outcome.stderr
    assert outcome.stdout == ""


# What the user cannot mend.


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "where", ["stages.total_gradients", "label_stages.cross_fit", "audit.write_run"]
)
def test_bug_gives_a_traceback_and_leaves_no_run(
    trained_case: Case, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"metaaudit.{where}", raising(ZeroDivisionError("planted")))
    before = files(trained_case.folder)
    outcome = trained_case.cli("score", "--run", trained_case.run)
    assert outcome.exit_code == 3
    assert "Traceback" in outcome.stderr
    assert "ZeroDivisionError: planted" in outcome.stderr
    assert "this is a bug in metaaudit" in outcome.error
    assert files(trained_case.folder) == before


CPU_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 144115188075855872 bytes. Error code 12 (Cannot allocate memory)",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 144115188075855872 bytes.",
)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("no more"), *map(RuntimeError, CPU_MEMORY)],
    ids=["Python", "GPU", "CPU on Linux", "CPU on Windows"],
)
def test_out_of_memory_is_no_bug(
    trained_case: Case, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "total_gradients", raising(error))
    outcome = trained_case.cli("score", "--run", trained_case.run)
    assert outcome.exit_code == 3
    assert "gradients: one task alone does not fit into memory" in outcome.error
    assert "Traceback" not in outcome.stderr
    assert not trained_case.run.exists()


def test_out_of_memory_outside_the_passes_over_tasks(
    trained_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "image_contents", raising(MemoryError()))
    outcome = trained_case.cli("score", "--run", trained_case.run)
    assert outcome.exit_code == 3
    assert "lower compute.task_batch" in outcome.error


def test_diverging_training_is_incomplete(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", {"learner.inner_lr": 1e30})
    outcome = case.cli("train")
    assert outcome.exit_code == 3
    assert "lower training.lr or learner.inner_lr" in outcome.error
    assert not case.checkpoint.exists()


def test_non_finite_gradients_are_incomplete(trained_case: Case) -> None:
    outcome = trained_case.cli("score", "--run", trained_case.run, "--set", "learner.inner_lr=1e30")
    assert outcome.exit_code == 3
    assert "not finite" in outcome.error
    assert not trained_case.run.exists()


@pytest.mark.parametrize("command", ["score", "train"])
def test_interrupt_ends_with_130(
    trained_case: Case, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_stages, "cross_fit", raising(KeyboardInterrupt()))
    monkeypatch.setattr(meta_train, "total_gradients", raising(KeyboardInterrupt()))
    options = ("--run", trained_case.run) if command == "score" else ("--overwrite",)
    outcome = trained_case.cli(command, *options)
    assert outcome.exit_code == exit_codes.INTERRUPTED == 130
    assert "interrupted" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not trained_case.run.exists()


def test_interrupt_that_pytorch_turned_into_an_error_is_still_one(
    trained_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = MetaTrainer._epoch

    def interrupted(self: MetaTrainer, state: Any, advance: Any) -> Any:
        if state.epoch == 0:
            return epoch(self, state, advance)
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("layer.key() == TransformType::Grad INTERNAL ASSERT FAILED")

    monkeypatch.setattr(MetaTrainer, "_epoch", interrupted)
    outcome = trained_case.cli("train", "--overwrite")
    assert outcome.exit_code == 130
    assert outcome.stderr.splitlines()[-1] == "interrupted"
    assert "has the last whole epoch; go on with --resume" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_interrupt_of_a_first_epoch_promises_no_checkpoint(
    trained_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, state: Any, advance: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MetaTrainer, "_epoch", interrupted)
    # What lies there is of an earlier run.
    assert "--resume" not in trained_case.cli("train", "--overwrite").stderr


@pytest.mark.slow
@pytest.mark.usefixtures("heard_interrupts")
def test_ctrl_c_leaves_a_checkpoint_that_training_goes_on_from(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", {"training.epochs": 3000, "training.batch": 1})
    process = subprocess.Popen(
        [sys.executable, "-m", "metaaudit", "train", str(case.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            deadline = time.monotonic() + 90
            log = case.checkpoint.with_suffix(".log.csv")
            # The header and three epochs: the first save is then over, not in the middle.
            while time.monotonic() < deadline:
                if log.exists() and len(log.read_text().splitlines()) > 3:
                    break
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, messages
    assert "Traceback" not in messages
    assert "has the last whole epoch; go on with --resume" in messages
    assert list(case.folder.glob(".*")) == []

    epoch = int(read_checkpoint(case.checkpoint).metadata["epoch"])
    assert 1 <= epoch < 3000
    assert f"interrupted after epoch {epoch} of 3000" in succeeds(case.cli("validate")).stdout
    case.score()
    # The recipe has 3000 epochs, so going on is seen by the next one and stopped there.
    resumed: list[int] = []

    def stop_after_one(self: Any, state: Any, finished: Any, advance: Any) -> None:
        resumed.append(state.epoch)
        finished(self._epoch(state, advance))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaaudit.training.meta_trainer.MetaTrainer.run", stop_after_one)
        assert case.cli("train", "--resume").exit_code == 130
    assert resumed == [epoch]
    assert int(read_checkpoint(case.checkpoint).metadata["epoch"]) == epoch + 1
