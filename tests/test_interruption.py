"""Scoring that is interrupted goes on from what it has, and ends with the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from metaaudit import audit, keeping, stages
from metaaudit.cache import items
from metaaudit.config import load_config
from metaaudit.console import silent
from metaaudit.selection import Selector
from tests.small import Case, digits, files, run_content, succeeds, write_case


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Eleven tasks in batches of two, of which even the quickest part is kept."""
    monkeypatch.setattr(keeping, "WORTH_S", 0.0)
    train, evaluation = digits(n_train=11)
    made = write_case(
        tmp_path / "case", {"compute.task_batch": 2}, train=train, evaluation=evaluation
    )
    succeeds(made.cli("train"))
    return made


class Stopped(Exception):
    """What ends a run in these tests."""


def test_a_run_goes_on_after_any_part(
    case: Case, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_content(case.score("whole"))
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "other"))
    ran: list[tuple[str, int]] = []
    part, runs = keeping._Parts._part, 0

    def one_more(self: Any, number: int) -> Any:
        before = len(ran)
        compute = self.compute

        def counted(rows: list[int], advance: Any) -> Any:
            ran.append((f"{self.kept.name} {self.task_set.content_hash}", number))
            return compute(rows, advance)

        object.__setattr__(self, "compute", counted)
        try:
            found = part(self, number)
        finally:
            object.__setattr__(self, "compute", compute)
        if len(ran) > before and len(ran) % 3 == 0:
            raise Stopped
        return found

    monkeypatch.setattr(keeping._Parts, "_part", one_more)
    for _ in range(100):
        runs += 1
        try:
            audit.run(load_config(case.config), case.run, silent())
        except Stopped:
            assert not case.run.exists()
        else:
            break
    assert runs > 10
    assert len(ran) == len(set(ran))  # nothing was computed twice
    assert run_content(case.run) == expected
    names = [item.name for item in items(tmp_path / "other")]
    assert len(names) == len([item.name for item in items(cache_dir)])  # no part is left


@pytest.mark.parametrize("damaged", [False, True])
def test_learned_selection_goes_on_after_any_epoch(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    settings = ("method=mts", "mts.epochs=3", "mts.batch=4")
    flags = [part for one in settings for part in ("--set", f"influence.{one}")]
    expected = run_content(case.score("whole", *flags))
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "other"))
    ran: list[tuple[Any, int]] = []
    epoch = Selector.epoch

    def stopping(self: Selector, number: int, *rest: Any) -> Any:
        if number and (self.unit, number) not in ran:
            ran.append((self.unit, number))
            raise Stopped
        return epoch(self, number, *rest)

    monkeypatch.setattr(Selector, "epoch", stopping)
    config = load_config(case.config, [f"influence.{one}" for one in settings])
    for _ in range(4):  # after the first and the second epoch of tasks, and of instances
        with pytest.raises(Stopped):
            audit.run(config, case.run, silent())
        unit = "tasks" if len(ran) < 3 else "instances"
        (kept,) = (tmp_path / "other").glob(f"mts-{unit}-*.h5")
        if damaged:
            kept.write_bytes(b"no HDF5")
    audit.run(config, case.run, silent())
    found = run_content(case.run)
    warned = {"findings.json", "manifest.json"} if damaged else set()  # of what was set aside
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in found.keys() - warned)
    names = sorted(item.name for item in items(tmp_path / "other"))
    assert [name for name in names if name.startswith("mts")] == ["mts-instances", "mts-tasks"]


@pytest.mark.slow
@pytest.mark.usefixtures("heard_interrupts")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_goes_on_after_a_signal(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    expected = run_content(case.score("whole"))
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "other"))
    lines = (
        "from metaaudit import keeping; keeping.WORTH_S = 0.0",
        "from metaaudit.cli import main; main()",
    )
    command = [sys.executable, "-c", "\n".join(lines), "score", case.config, "--run", case.run]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "other").glob("sampled-fisher-*.h5")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    ended = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == ended[sent], said
    assert not case.run.exists() and not list(case.folder.glob(".run*"))
    if sent is signal.SIGINT:
        assert b"what was computed is kept: the same command goes on from there" in said
    succeeds(case.cli("score", "--run", case.run, "--resume"))
    assert run_content(case.run) == expected


def test_resuming_a_whole_run_computes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    run = case.score("run", "--resume")
    before = files(run)
    monkeypatch.setattr(audit, "run", lambda *_: pytest.fail("scored again"))
    again = succeeds(case.cli("score", "--run", run, "--resume"))
    assert "Worst tasks" in again.stdout
    assert files(run) == before
    other = case.cli("score", "--run", run, "--resume", "--set", "influence.damping=0.5")
    assert other.exit_code == 2
    assert "run: is a run of another configuration; expected the one that" in other.stderr
    (case.folder / "none").mkdir()
    assert case.cli("score", "--run", case.folder / "none", "--resume").exit_code == 2


def test_parts_are_even_and_not_too_many() -> None:
    def sizes(n_tasks: int, batch: int) -> list[int]:
        task_set = digits(n_train=8)[0].select([i % 8 for i in range(n_tasks)])
        kept = SimpleNamespace(batch=batch)
        parts = keeping._Parts(kept, "", None, task_set, None, None)  # type: ignore[arg-type]
        assert [row for rows in parts.rows for row in rows] == list(range(n_tasks))
        return [len(rows) for rows in parts.rows]

    assert sizes(5, 10) == [5]
    assert sizes(25, 10) == [9, 8, 8]
    assert sizes(1000, 10) == [59] * 14 + [58] * 3
    assert len(sizes(6400, 25)) == 16


def test_quick_parts_are_not_kept(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", {"compute.task_batch": 2})
    succeeds(case.cli("train"))
    kept: list[str] = []
    write = keeping.FactorCache._write

    def spy(self: Any, path: Path, key: str, stored: Any) -> None:
        kept.append(path.name.rpartition("-")[0])
        write(self, path, key, stored)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping, "WORTH_S", 1e9)
        patch.setattr(keeping.FactorCache, "_write", spy)
        case.score()
    assert sorted(kept) == sorted(
        [
            *("gradients", "adapted-fit", "crossfit", "supportfit") * 2,
            *("instances", "sampled-fisher"),
        ]
    )


def test_fewer_tasks_at_once_where_memory_is_short(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = case.score("whole", "--set", "compute.task_batch=8")
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "other"))
    derivatives = stages.weight_derivatives

    def short(some: Any, *parts: Any) -> Any:
        if min(len(some.task_set), 8) > most:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return derivatives(some, *parts)

    most = 2
    monkeypatch.setattr(stages, "weight_derivatives", short)
    told = succeeds(case.cli("score", "--run", case.run, "--set", "compute.task_batch=8")).stderr
    for was, then in ((6, 3), (3, 1)):
        line = f"instance influence: out of memory with {was} tasks at once; goes on with {then}\n"
        assert told.count(line) == 1  # the second part knows
    with h5py.File(expected / "scores.h5") as one, h5py.File(case.run / "scores.h5") as other:
        whole, parts = (file["instances/influence"][()] for file in (one, other))
    np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-6 * np.abs(whole).max())

    most = 0
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "third"))
    failed = case.cli("score", "--run", case.folder / "none", "--set", "compute.task_batch=8")
    assert failed.exit_code == 3
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("error: instance influence: one task alone does not fit into memory")
