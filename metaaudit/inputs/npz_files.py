"""Arrays in ``.npz`` files, row by row: NumPy itself reads whole arrays only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from metaaudit.errors import TaskSetError

_STARTS = (b"PK\x03\x04", b"PK\x05\x06", np.lib.format.MAGIC_PREFIX)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


class NpzArrays:
    """The arrays of an ``.npz`` file, none of which may need pickle.

    Args:
        path: The file.
        stack: What closes it.

    Raises:
        TaskSetError: It holds one array without a name.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        # An own stream: NumPy leaves the one it opens for a damaged file to the garbage collector.
        stream = stack.enter_context(path.open("rb"))
        # NumPy would take it for a pickle, and advise to trust it.
        if not stream.read(max(map(len, _STARTS))).startswith(_STARTS):
            raise ValueError("it does not begin as a zip does")
        stream.seek(0)
        file = np.load(stream, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise TaskSetError(path, "holds one array", "arrays with names", "write with np.savez")
        self._file: Any = stack.enter_context(file)
        self.names = tuple(file.files)

    def form(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array."""
        with self._member(name) as member:
            shape, _, dtype = self._header(name, member)
            return shape, dtype

    def whole(self, name: str) -> npt.NDArray[Any]:
        """All of an array."""
        self.form(name)  # refuses what needs pickle
        return np.asarray(self._file[name])

    def rows(self, name: str) -> Iterator[npt.NDArray[Any]]:
        """The rows of an array."""
        with self._member(name) as member:
            shape, fortran, dtype = self._header(name, member)
            if not fortran:
                yield from _rows(member, shape, dtype)
                return
        yield from self.whole(name)  # its rows are scattered over the file

    def _member(self, name: str) -> IO[bytes]:
        names = self._file.zip.namelist()
        member: IO[bytes] = self._file.zip.open(name if name in names else f"{name}.npy")
        return member

    def _header(self, name: str, member: IO[bytes]) -> _Header:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"{name} has a header of version {version}")
        header: _Header = _HEADERS[version](member)
        if header[2].hasobject:
            remedy = "array.astype(str) for text"
            raise TaskSetError(
                f"{self._path}: {name}", "holds Python objects", "a plain array", remedy
            )
        return header


def _rows(
    member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[npt.NDArray[Any]]:
    size = math.prod(shape[1:]) * dtype.itemsize
    for _ in range(shape[0]):
        data = member.read(size)
        if len(data) < size:
            raise ValueError("an array is shorter than its header says")
        yield np.frombuffer(data, dtype).reshape(shape[1:])
    if member.read(1):  # which also makes the checksum count
        raise ValueError("an array is longer than its header says")
