"""One process at a time for each key, and word of who that is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from metaaudit.cache import Arrays, FactorCache, lock
from tests.cache.cases import arrays, assert_same, get, held_by_another_process, only_file, refuse


def test_lock_is_acquired_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquired: list[Path] = []
    acquire = FileLock.acquire

    def counted(lock: FileLock, *args: Any, **kwargs: Any) -> Any:
        acquired.append(Path(lock.lock_file))
        return acquire(lock, *args, **kwargs)

    monkeypatch.setattr(FileLock, "acquire", counted)
    get(FactorCache(tmp_path))
    assert len(acquired) == 1


def test_long_wait_for_another_process_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(FactorCache(tmp_path))
    monkeypatch.setattr(lock, "QUIET_WAIT_S", 0.1)
    other = FileLock(only_file(tmp_path).with_suffix(".lock"), thread_local=False)
    other.acquire()
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        other.release()

    assert_same(get(FactorCache(tmp_path, say=say), refuse), arrays())
    assert told == [f"waiting for another process that holds {other.lock_file}"]


@pytest.mark.slow
def test_wait_names_the_process_that_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "QUIET_WAIT_S", 0.1)
    folder = tmp_path / "cache"
    told: list[str] = []
    with held_by_another_process(folder) as process:

        def say(text: str) -> None:
            told.append(text)
            process.kill()  # and the system frees its lock

        assert_same(get(FactorCache(folder, say=say), key={}), arrays())
    path = only_file(folder).with_suffix(".lock")
    host = platform.node()
    assert told == [f"waiting for process {process.pid} on host {host} that holds {path}"]
    assert list(folder.glob("*.holder")) == []


def test_holder_is_named_while_it_computes_and_no_longer(tmp_path: Path) -> None:
    named: list[str] = []

    def compute() -> Arrays:
        (path,) = tmp_path.glob("*.holder")
        named.append(lock.holder(path.with_suffix(".h5")))
        return arrays()

    get(FactorCache(tmp_path), compute)
    assert named == [f"process {os.getpid()} on host {platform.node()}"]
    assert list(tmp_path.glob("*.holder")) == []


def test_word_that_a_dead_holder_left_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(FactorCache(tmp_path))
    entry = only_file(tmp_path)
    left = entry.with_suffix(".holder")
    left.write_text('{"pid": 1, "host": "gone"}')
    with lock.locked(entry, lambda _: None):
        assert lock.holder(entry) == f"process {os.getpid()} on host {platform.node()}"

    left.write_text('{"pid": 1, "host": "gone"}')

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with lock.locked(entry, lambda _: None):
        assert lock.holder(entry) == "another process"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"pid": "x", "host": "a"}', '{"pid": 1, "host": "\\u001b"}']
)
def test_word_that_cannot_be_understood_is_not_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.holder").write_text(text)
    assert lock.holder(tmp_path / "a.h5") == "another process"


def test_lock_that_is_held_is_not_waited_for(tmp_path: Path) -> None:
    entry = tmp_path / "a.h5"
    with lock.locked(entry, lambda _: None), lock.locked_at_once(entry) as held:
        assert not held
    with lock.locked_at_once(entry) as held:
        assert held
        other = FileLock(entry.with_suffix(".lock"))
        with pytest.raises(Timeout):
            other.acquire(timeout=0)


SLOW_COMPUTER = """
import sys, time
from pathlib import Path
import numpy as np
from metaaudit.cache import FactorCache

folder = Path(sys.argv[1])
def compute():
    with (folder / "computed").open("a") as file:
        file.write("x")
    time.sleep(float(sys.argv[2]))
    return {"a": np.arange(5.0)}

(folder / f"ready-{sys.argv[3]}").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
arrays = FactorCache(folder / "cache").get("gradients", {}, compute, label="x")
print(arrays["a"].tolist())
"""


@pytest.mark.slow
def test_two_processes_at_once_compute_once(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SLOW_COMPUTER, tmp_path, "0.5", str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    (tmp_path / "go").touch()
    shown = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert shown == [str([0.0, 1.0, 2.0, 3.0, 4.0])] * 2
    assert (tmp_path / "computed").read_text() == "x"
