"""Files and folders that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metaaudit.errors import RunError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside ``path`` that takes its place if the block succeeds.

    Raises:
        RunError: ``path`` is a folder, or its parent cannot be written to.
    """
    temporary = _beside(path)
    try:
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
        except OSError as error:
            raise _not_writable(path, error) from None
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # it took its place, or could not be made
            temporary.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``path`` if the block succeeds.

    Raises:
        RunError: ``path`` exists already, is the current folder, or its parent cannot be written
            to.
    """
    check_new(path)
    if path.resolve() == Path.cwd():  # it would be replaced under one's feet
        raise RunError(path, "is the current folder", "a new folder", "name another")
    missing = [parent for parent in path.parents if not parent.exists()]
    temporary = _beside(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        except OSError as error:
            raise _not_writable(path, error) from None
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: the block succeeded
            for parent in missing:
                parent.rmdir()


def check_new(path: Path) -> None:
    """Refuses a folder that is there and not empty.

    Raises:
        RunError: It is, or cannot be looked at.
    """
    try:
        in_use = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise _not_writable(path, error) from None
    if in_use:
        raise RunError(path, "exists already", "a new folder", "name another or remove it first")


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON. NaN and infinity are errors, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _beside(path: Path) -> Path:
    """A new name, known before anything is made there: an interrupt cannot leave a stray file."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _not_writable(path: Path, error: OSError) -> RunError:
    return RunError(
        path, f"cannot be written ({error.strerror})", "a folder you may write to", "name another"
    )
