"""One process at a time for each key, and who that is.

The system frees the lock of a process that died. Who holds it stands in a file of its own beside
the lock, since opening a lock file may empty it; it is read only by those who wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from metaaudit.cache.place import FOLDER_VARIABLE
from metaaudit.errors import RunError

QUIET_WAIT_S = 1.0  # after which a wait for another process is told


@contextlib.contextmanager
def locked(entry: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of an entry, for which it waits as long as it takes.

    Args:
        entry: The file of the key.
        say: Told once of a wait that is no moment.

    Raises:
        RunError: The folder cannot be made or written to.
    """
    lock = FileLock(entry.with_suffix(".lock"))
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=QUIET_WAIT_S)
        except Timeout:
            say(f"waiting for {holder(entry)} that holds {lock.lock_file}")
            lock.acquire()
    except OSError as error:
        raise RunError(
            entry.parent,
            f"the factor cache cannot be written ({error.strerror})",
            "a folder you may write to",
            f"set {FOLDER_VARIABLE}",
        ) from None
    try:
        _sign(entry)
        yield
    finally:
        with contextlib.suppress(OSError):
            _holder_file(entry).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def locked_at_once(entry: Path) -> Iterator[bool]:
    """Holds the lock of an entry unless another process does: yields whether it is held.

    Raises:
        OSError: The folder cannot be written to.
    """
    lock = FileLock(entry.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def holder(entry: Path) -> str:
    """Names the process that holds the lock of an entry, where it is known."""
    try:
        found = json.loads(_holder_file(entry).read_text(encoding="utf-8"))
        text = f"process {int(found['pid'])} on host {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    return text if text.isprintable() else "another process"


def _sign(entry: Path) -> None:
    """Leaves word of who holds the lock; there is none if it cannot be written."""
    path = _holder_file(entry)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)  # a dead holder's must not stay if the next line fails
        whose = {"pid": os.getpid(), "host": platform.node() or "unknown"}
        path.write_text(json.dumps(whose), encoding="utf-8")


def _holder_file(entry: Path) -> Path:
    return entry.with_suffix(".holder")
