"""HDF5 files on disks that may be full.

Where the disk refuses a write, HDF5 itself fails to close the file, and the process crashes when it
ends. So HDF5 writes through a Python file that keeps the error to itself until HDF5 has closed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


@contextmanager
def writing(path: Path, **options: Any) -> Iterator[h5py.File]:
    """Yields a new HDF5 file.

    Args:
        path: Where it is written.
        **options: Those of ``h5py.File``.

    Raises:
        OSError: It could not be written.
    """
    with _Forbearing(path, "w+") as stream:
        with h5py.File(stream, "w", **options) as file:
            yield file
        if stream.error is not None:
            raise stream.error


class _Forbearing(io.FileIO):
    """A file that drops all writes after one that failed, and keeps the error of that one."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        while left and self.error is None:
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0
