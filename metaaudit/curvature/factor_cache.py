"""Arrays that are dear to compute, kept in HDF5 under a hash of all that they depend on.

A killed writer leaves an HDF5 file that opens and is partial. A flipped bit reads silently where
there is no checksum, and in HDF5's own structures it can crash the process. So a file is written
beside its place and moved there when whole, ``complete`` is written last, every dataset carries
``fletcher32``, and the file's user block, which HDF5 leaves alone, holds the SHA-256 of all that
follows: it is checked before HDF5 sees the file. What fails is set aside and computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from metaaudit.errors import RunError
from metaaudit.runs.atomic import replacing
from metaaudit.runs.hdf5 import writing

FORMAT = 2
CHUNK_BYTES = 1 << 20
SEAL_BYTES = 512  # the smallest user block
QUIET_WAIT_S = 1.0  # after which a wait for another process is told

Arrays = dict[str, npt.NDArray[Any]]


def cache_folder() -> Path:
    """``METAAUDIT_CACHE_DIR``, or the platform's cache folder."""
    chosen = os.environ.get("METAAUDIT_CACHE_DIR")
    return Path(chosen) if chosen else user_cache_path("metaaudit")


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


@dataclass(frozen=True)
class Stored:
    """Arrays and the time that computing them took."""

    arrays: Arrays
    seconds: float


@dataclass
class FactorCache:
    """A folder of HDF5 files, one a key.

    Attributes:
        folder: Where the files are.
        uses: What each request came to, by its label.
        warnings: One line for each damaged file that was set aside and each that was not written.
        say: Told, at once, of a wait for another process.
    """

    folder: Path
    uses: dict[str, CacheUse] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    say: Callable[[str], None] = lambda _: None

    def get(
        self,
        name: str,
        depends_on: Mapping[str, Any],
        compute: Callable[[], Arrays],
        *,
        label: str,
    ) -> Arrays:
        """Returns the arrays of a key, computed where the cache lacks them.

        Args:
            name: What they are; part of the file's name and of the key.
            depends_on: Everything the arrays are a function of, as JSON values.
            compute: Computes them.
            label: What the request is called in ``uses``.

        Raises:
            RunError: The folder cannot be made or locked.
        """
        path, key = self._path(name, depends_on)
        with self._locked(path):
            started = time.perf_counter()
            stored = self._read(path, key)
            if stored is not None:
                seconds = time.perf_counter() - started
                saved = max(0.0, stored.seconds - seconds)
                self.uses[label] = CacheUse(key, "hit", seconds, saved)
                return stored.arrays
            arrays = compute()
            seconds = time.perf_counter() - started
            self._write(path, key, Stored(arrays, seconds))
        self.uses[label] = CacheUse(key, "computed", seconds, 0.0)
        return arrays

    def holds(self, name: str, depends_on: Mapping[str, Any]) -> bool:
        """Whether a file for this key is there; its content is not checked."""
        return self._path(name, depends_on)[0].is_file()

    def _path(self, name: str, depends_on: Mapping[str, Any]) -> tuple[Path, str]:
        text = json.dumps([FORMAT, name, depends_on], sort_keys=True, allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / f"{name}-{key[:32]}.h5", key

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        lock = FileLock(path.with_suffix(".lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=QUIET_WAIT_S)
            except Timeout:
                self.say(f"waiting for another process that holds {lock.lock_file}")
                lock.acquire()
        except OSError as error:
            raise RunError(
                path.parent,
                f"the factor cache cannot be written ({error.strerror})",
                "a folder you may write to",
                "set METAAUDIT_CACHE_DIR",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _read(self, path: Path, key: str) -> Stored | None:
        if not path.is_file():
            return None
        try:
            return _load(path, key)
        # A damaged HDF5 file can raise almost anything, depending on the byte that was hit.
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            self.warnings.append(
                f"cache file {path.name} was damaged ({error}); moved to {aside.name}, rebuilt"
            )
            return None

    def _write(self, path: Path, key: str, stored: Stored) -> None:
        """Stores the arrays or warns: what was dear to compute is not given up for a full disk."""
        try:
            with replacing(path) as temporary:
                with writing(temporary, userblock_size=SEAL_BYTES) as file:
                    for name, values in stored.arrays.items():
                        chunks = chunk_shape(values)
                        file.create_dataset(name, data=values, chunks=chunks, fletcher32=True)
                    file.attrs["key"] = key
                    file.attrs["seconds"] = stored.seconds
                    file.attrs["complete"] = True
                seal(temporary)
        except (OSError, RunError) as error:
            self.warnings.append(f"cache file {path.name} was not written ({error})")


def chunk_shape(values: npt.NDArray[Any]) -> tuple[int, ...]:
    """Whole rows, about a mebibyte a chunk."""
    row_bytes = max(1, values[:1].nbytes)
    rows = max(1, min(len(values), CHUNK_BYTES // row_bytes))
    return (rows, *values.shape[1:])


def seal(path: Path) -> None:
    """Writes the digest of a file's content into its user block."""
    text = _seal_of(path)
    with path.open("r+b") as file:
        file.write(text)


def _seal_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(SEAL_BYTES)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"metaaudit; sha256 of what follows: {digest}\n".encode().ljust(SEAL_BYTES, b"\0")


def _load(path: Path, key: str) -> Stored:
    with path.open("rb") as stream:
        if stream.read(SEAL_BYTES) != _seal_of(path):
            raise ValueError("checksum differs")
    with h5py.File(path, "r") as file:
        if not file.attrs["complete"] or file.attrs["key"] != key:
            raise ValueError("incomplete, or written for another key")
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link")
        arrays = {name: np.asarray(file[name][()]) for name in file}
        return Stored(arrays, float(file.attrs["seconds"]))
