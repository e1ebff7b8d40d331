"""What lies in the cache's folder, by key, and how it is removed.

Only files whose names have the form that the cache gives are looked at; all else in the folder is
somebody else's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metaaudit.cache.lock import holder, locked_at_once
from metaaudit.cache.place import FOLDER_VARIABLE
from metaaudit.errors import RunError

Kind = Literal["entry", "damaged", "temporary", "lock", "holder"]

KINDS: dict[str, Kind] = {
    ".h5": "entry",
    ".damaged": "damaged",
    ".holder": "holder",
    ".lock": "lock",  # last: as long as it is there, nobody else works on the key
}

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
STEM = rf"{NAME.pattern}-[0-9a-f]{{32}}"
FILE = re.compile(rf"({STEM})(\.h5|\.damaged|\.lock|\.holder)")
TEMPORARY = re.compile(rf"\.({STEM})\.h5\.[0-9a-f]+")


@dataclass(frozen=True)
class CacheFile:
    """One file.

    Attributes:
        path: Where it is.
        kind: ``entry`` and ``damaged`` hold arrays; ``temporary`` is one that is being written, or
            whose writer was killed.
        size: In bytes.
        used: When it was last read or written, in seconds since 1970.
    """

    path: Path
    kind: Kind
    size: int
    used: float

    @property
    def holds_arrays(self) -> bool:
        """Whether it is more than a sign of who works on the key."""
        return self.kind not in ("lock", "holder")


@dataclass(frozen=True)
class Item:
    """All files of one key.

    Attributes:
        stem: What their names have in common: the name of the arrays and 32 digits of the key.
        folder: Where they are.
        files: At least one.
    """

    stem: str
    folder: Path
    files: tuple[CacheFile, ...]

    @property
    def path(self) -> Path:
        """Where the entry is, or would be."""
        return self.folder / f"{self.stem}.h5"

    @property
    def key(self) -> str:
        """How the key begins."""
        return self.stem.rpartition("-")[2]

    @property
    def name(self) -> str:
        """What the arrays are."""
        return self.stem.rpartition("-")[0]

    @property
    def size(self) -> int:
        """Bytes of the files that hold arrays."""
        return sum(file.size for file in self.files if file.holds_arrays)

    @property
    def used(self) -> float:
        """When the entry was last read or written; 0 if there is none."""
        return max((file.used for file in self.files if file.kind == "entry"), default=0.0)


@dataclass(frozen=True)
class Cleared:
    """What ``clear`` did, or would do.

    Attributes:
        removed: Files that went.
        held: One line for each key that another process holds.
        failed: One line for each key that could not be removed.
    """

    removed: list[CacheFile]
    held: list[str]
    failed: list[str]


def file_path(folder: Path, name: str, key: str) -> Path:
    """Where the entry of a key is.

    Raises:
        ValueError: ``name`` is none that the cache would find again.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of letters, digits, '-' and '_'")
    return folder / f"{name}-{key[:32]}.h5"


def items(folder: Path) -> list[Item]:
    """All that the cache has in a folder, by stem; nothing if there is no such folder.

    Raises:
        RunError: The folder cannot be read.
    """
    found: dict[str, list[CacheFile]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                kind, stem = _kind(entry.name)
                if kind and entry.is_file(follow_symlinks=False):
                    _add(found.setdefault(stem, []), entry, kind)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(
            folder,
            f"cannot be listed ({error.strerror})",
            "the folder of the factor cache",
            f"set {FOLDER_VARIABLE}",
        ) from None
    return [Item(stem, folder, tuple(files)) for stem, files in sorted(found.items()) if files]


def _kind(name: str) -> tuple[Kind | None, str]:
    if match := FILE.fullmatch(name):
        return KINDS[match[2]], match[1]
    match = TEMPORARY.fullmatch(name)
    return ("temporary", match[1]) if match else (None, "")


def _add(files: list[CacheFile], entry: os.DirEntry[str], kind: Kind) -> None:
    try:
        stat = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # another process has just removed it
        return
    files.append(CacheFile(Path(entry.path), kind, stat.st_size, stat.st_mtime))


def remove(item: Item, wanted: Callable[[], bool] = lambda: True) -> bool:
    """Removes all files of a key, unless another process holds it or they are not wanted removed.

    Args:
        item: The files.
        wanted: Asked once the lock is held, when nothing can change any more.

    Returns:
        Whether they were removed.

    Raises:
        OSError: A file cannot be removed.
    """
    # While the lock is held, what is temporary is of a dead writer.
    temporary = [file.path for file in item.files if file.kind == "temporary"]
    return remove_path(item.path, wanted, temporary)


def remove_path(
    path: Path, wanted: Callable[[], bool] = lambda: True, others: Sequence[Path] = ()
) -> bool:
    """Removes what belongs to the entry at a path, and other files of its key, as ``remove``."""
    with locked_at_once(path) as held:
        if not held or not wanted():
            return False
        for one in (*others, *(path.with_suffix(suffix) for suffix in KINDS)):
            one.unlink(missing_ok=True)
    return True


def clear(folder: Path, *, dry_run: bool = False) -> Cleared:
    """Removes all that the cache has in a folder, except what another process holds.

    Args:
        folder: The folder.
        dry_run: Whether nothing is removed, only listed.

    Raises:
        RunError: The folder cannot be read.
    """
    done = Cleared([], [], [])
    for item in items(folder):
        try:
            gone = _is_free(item) if dry_run else remove(item)
        except OSError as error:
            done.failed.append(f"{item.stem}: cannot be removed ({error.strerror})")
            continue
        if gone:
            done.removed.extend(item.files)
        else:
            done.held.append(f"{item.stem}: {holder(item.path)} holds it")
    return done


def _is_free(item: Item) -> bool:
    if all(file.kind != "lock" for file in item.files):  # and to try it would leave one
        return True
    with locked_at_once(item.path) as held:
        return held
