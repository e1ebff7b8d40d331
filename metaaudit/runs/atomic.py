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

    A link stays one: what it leads to is replaced.

    Raises:
        RunError: ``path`` is a folder, a pipe or a device, or its parent cannot be written to.
    """
    target = resolved(path)
    temporary = _beside(target)
    try:
        try:
            if target.exists() and not target.is_file():
                what = "it is a folder" if target.is_dir() else "it is no regular file"
                raise OSError(errno.EINVAL, what)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
        except OSError as error:
            raise _not_writable(path, error) from None
        yield temporary
        _sync(temporary)
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):  # it took its place, or could not be made
            temporary.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``path`` if the block succeeds.

    A link stays one: what it leads to is made.

    Raises:
        RunError: ``path`` exists already, is the current folder or a mount point, or its parent
            cannot be written to.
    """
    check_new(path)
    target = resolved(path)
    missing = [parent for parent in target.parents if not parent.exists()]
    temporary = _beside(target)
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        except OSError as error:
            raise _not_writable(path, error) from None
        yield temporary
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: the block succeeded
            for parent in missing:
                parent.rmdir()


def check_new(path: Path) -> None:
    """Refuses a path that no new folder can take the place of.

    Raises:
        RunError: It is there and not empty, is the current folder or a mount point, or cannot be
            looked at.
    """
    try:
        in_use = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise _not_writable(path, error) from None
    if in_use:
        raise RunError(path, "exists already", "a new folder", "name another or remove it first")
    target = resolved(path)
    if target == Path.cwd():  # it would be replaced under one's feet
        raise RunError(path, "is the current folder", "a new folder", "name another")
    if target.is_mount():
        raise RunError(path, "is a mount point", "a new folder", "name a folder in it")


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` to ``path``: atomically to a file, at once to a pipe or a device.

    Raises:
        RunError: It cannot be written to.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``: atomically to a file, at once to a pipe or a device.

    Raises:
        RunError: It cannot be written to.
    """
    if is_stream(path):
        try:
            with path.open("ab") as stream:  # it may be a file that is added to
                stream.write(content)
        except OSError as error:
            raise _not_writable(path, error) from None
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as ``json_text``."""
    write_text(path, json_text(value))


def json_text(value: Any, *, sort_keys: bool = False) -> str:
    """``value`` as indented JSON. NaN and infinity are errors, since JSON has neither."""
    text = json.dumps(value, indent=2, sort_keys=sort_keys, allow_nan=False, ensure_ascii=False)
    return text + "\n"


def is_stream(path: Path) -> bool:
    """Whether ``path`` is a pipe or a device, or leads to an open file, as ``/dev/stdout`` does."""
    absolute = path.absolute()
    named = any(absolute.is_relative_to(folder) for folder in ("/dev", "/proc"))
    if named and not absolute.is_relative_to("/dev/shm"):
        return True
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except OSError:  # such as a name that is too long
        return False


def resolved(path: Path) -> Path:
    """Where the links of ``path`` lead, whether there is something or not.

    Raises:
        RunError: They lead round in a circle.
    """
    target = Path(os.path.realpath(path))
    if os.path.islink(target):  # noqa: PTH114  (``Path.is_symlink`` can raise)
        raise _not_writable(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
    return target


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
