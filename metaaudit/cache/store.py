"""The cache itself: arrays by all that they depend on.

A file is written beside its place and moved there when whole. What fails its checks is set aside
and computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.filesize import decimal

from metaaudit.cache.entry import Arrays, Stored, read_entry, write_entry
from metaaudit.cache.eviction import make_room
from metaaudit.cache.folder import file_path, remove_path
from metaaudit.cache.lock import locked
from metaaudit.cache.place import LIMIT_VARIABLE, cache_limit
from metaaudit.cache.seal import FORMAT, DamagedError
from metaaudit.errors import RunError
from metaaudit.runs.atomic import replacing


@dataclass(frozen=True)
class CacheUse:
    """What the cache did for one request.

    Attributes:
        key: SHA-256 of all that the arrays depend on.
        status: ``hit`` or ``computed``.
        seconds: Time it took.
        saved_s: Time that computing took when the arrays were stored, less ``seconds``; 0 unless
            it was a hit.
    """

    key: str
    status: Literal["hit", "computed"]
    seconds: float
    saved_s: float


class _TooLargeError(Exception):
    """An entry that is larger than the whole cache may be."""


@dataclass
class FactorCache:
    """A folder of HDF5 files, one a key.

    Attributes:
        folder: Where the files are.
        uses: What each request came to, by its label, in the order of the requests.
        warnings: One line for each damaged file that was set aside and each that was not written.
        notes: One line for each time that others were removed to make room.
        say: Told, at once, of a wait for another process and of every note.
        limit: Bytes that all files together may have.
    """

    folder: Path
    uses: dict[str, CacheUse] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    say: Callable[[str], None] = lambda _: None
    limit: float = field(default_factory=cache_limit)

    def get(
        self,
        name: str,
        depends_on: Mapping[str, Any],
        compute: Callable[[], Arrays],
        *,
        label: str = "",
        worth_s: float = 0.0,
    ) -> Arrays:
        """Returns the arrays of a key, computed where the cache lacks them.

        Args:
            name: What they are; part of the file's name and of the key.
            depends_on: Everything the arrays are a function of, as JSON values.
            compute: Computes them.
            label: What the request is called in ``uses``; where it has no name it is not in there.
            worth_s: Arrays that took less than so many seconds are not stored.

        Raises:
            RunError: The folder cannot be made or locked.
            ValueError: ``name`` cannot be part of the file's name.
        """
        path, key = self._path(name, depends_on)
        with locked(path, self.say):
            started = time.perf_counter()
            stored = self._read(path, key)
            if stored is not None:
                seconds = time.perf_counter() - started
                saved = max(0.0, stored.seconds - seconds)
                self._note(label, CacheUse(key, "hit", seconds, saved))
                return stored.arrays
            arrays = compute()
            seconds = time.perf_counter() - started
            if seconds >= worth_s:
                self._write(path, key, Stored(arrays, seconds))
        self._note(label, CacheUse(key, "computed", seconds, 0.0))
        return arrays

    def forget(self, name: str, depends_on: Mapping[str, Any]) -> None:
        """Removes all files of a key, unless another process holds it or they cannot be removed."""
        with suppress(OSError):
            remove_path(self._path(name, depends_on)[0])

    def holds(self, name: str, depends_on: Mapping[str, Any]) -> bool:
        """Whether a file for this key is there; its content is not checked."""
        return self._path(name, depends_on)[0].is_file()

    def summary(self) -> list[str]:
        """One line for each request: what was reused, what was computed, and the time."""
        return [
            f"{label}: reused ({use.saved_s:.1f} s saved)"
            if use.status == "hit"
            else f"{label}: computed in {use.seconds:.1f} s"
            for label, use in self.uses.items()
        ]

    def _note(self, label: str, use: CacheUse) -> None:
        if label:
            self.uses[label] = use

    def _path(self, name: str, depends_on: Mapping[str, Any]) -> tuple[Path, str]:
        text = json.dumps([FORMAT, name, depends_on], sort_keys=True, allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()
        return file_path(self.folder, name, key), key

    def _read(self, path: Path, key: str) -> Stored | None:
        try:
            stored = read_entry(path, key)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            self.warnings.append(
                f"cache file {path.name} was damaged ({error}); moved to {aside.name}, rebuilt"
            )
            return None
        with suppress(OSError):  # a cache that cannot be written to is still read
            os.utime(path)
        return stored

    def _write(self, path: Path, key: str, stored: Stored) -> None:
        """Stores the arrays or warns: what was dear to compute is not given up for a full disk."""
        try:
            self._check_size(sum(np.asarray(a).nbytes for a in stored.arrays.values()))
            with replacing(path) as temporary:
                write_entry(temporary, key, stored)
                self._check_size(temporary.stat().st_size)
        except (OSError, RunError, _TooLargeError) as error:
            self.warnings.append(f"cache file {path.name} was not written ({error})")
        else:
            self._make_room()

    def _check_size(self, size: int) -> None:
        if size > self.limit:
            raise _TooLargeError(
                f"{decimal(size)}, more than the limit of the whole cache; raise {LIMIT_VARIABLE}"
            )

    def _make_room(self) -> None:
        """Evicts others; what was just written stays, since its lock is still held."""
        try:
            gone = make_room(self.folder, self.limit)
        except RunError as error:
            self.warnings.append(f"the cache was not kept below its limit ({error})")
            return
        if gone:
            size = decimal(sum(item.size for item in gone))
            names = ", ".join(item.stem for item in gone)
            self.notes.append(
                f"cache limit of {decimal(int(self.limit))} ({LIMIT_VARIABLE}): removed {size} "
                f"not used for longest: {names}"
            )
            self.say(self.notes[-1])
