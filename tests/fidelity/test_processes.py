"""Processes that work on items: their results, their errors and their ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metaaudit.errors import IncompleteError, MetaauditError, RunError
from metaaudit.fidelity.processes import Workers
from tests.fidelity.odd_items import do

ROOT = Path(__file__).parents[2]


def work(items: list[str], count: int = 1) -> tuple[dict[int, tuple[str, str]], list[str]]:
    """Results by number, and what was said, of items that one after the other are given out."""
    said: list[str] = []
    found = {}
    names = [f"item {number}" for number in range(len(items))]
    with Workers(count, do, 3, names, said.append) as workers:
        left = list(enumerate(items))
        while left or workers.busy:
            while left and workers.idle:
                workers.give(*left.pop(0))
            for number, result in workers.results(60):
                found[number] = result
    return found, said


def test_every_item_is_done_once_with_few_threads_that_wait_asleep() -> None:
    before = dict(os.environ)
    items = ["a", "say b", "c", "d", "e"]
    found, said = work(items, 2)
    assert found == {number: (item, "3 PASSIVE True") for number, item in enumerate(items)}
    assert said == ["b"]
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("item", "kind", "message"),
    [
        ("die", IncompleteError, r"^item 1: its process was killed by signal 9; where memory ran"),
        ("exit", IncompleteError, r"^item 1: its process ended with exit code 7; where memory ran"),
        ("refuse", RunError, r"^item 1: folder: is no folder; expected a folder; make one$"),
        ("fail x", IncompleteError, r"^item 1: MemoryError: x$"),
    ],
)
def test_an_end_that_is_bad_is_one_clear_error(
    item: str, kind: type[MetaauditError], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind, match=message):
        work(["a", item])
    # Where an error came about that is none of ours is of interest.
    assert ("Traceback" in capfd.readouterr().err) == item.startswith("fail")


def test_processes_end_with_the_block_whatever_they_do(tmp_path: Path) -> None:
    with Workers(1, do, 1, ["one"], print) as workers:
        workers.give(0, f"last {tmp_path / 'begun'}")
        wait_for(tmp_path / "begun")
        assert workers.busy == [0] and not workers.idle
        assert list(workers.results(0.01)) == []
        started = time.monotonic()
    assert time.monotonic() - started < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "begun").read_text()), 0)


@pytest.mark.usefixtures("heard_interrupts")
def test_ctrl_c_ends_all_without_a_word(tmp_path: Path) -> None:
    begun = [tmp_path / "one", tmp_path / "two"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fidelity.odd_items", *begun],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for path in begun:
        wait_for(path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to all of them
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    for path in begun:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
