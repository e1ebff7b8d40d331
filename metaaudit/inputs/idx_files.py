"""Files in the idx format, compressed or not.

An idx file is a magic number (two zeros, the type, the number of dimensions), the size of each
dimension, all of four bytes with the highest first, and then the numbers.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from metaaudit.errors import TaskSetError
from metaaudit.inputs.source import Pixels

_UINT8 = 0x08
_MAX_BYTES = 1 << 32
_BLOCK_BYTES = 1 << 22
_REMEDY = "fetch it again"


@dataclass(frozen=True)
class IdxFile:
    """A file of uint8 numbers.

    Attributes:
        path: Where it is; compressed if it ends in ``.gz``.
        shape: Sizes of its dimensions, as the header has them.
    """

    path: Path
    shape: tuple[int, ...]

    @classmethod
    def opened(cls, path: Path, dims: int) -> IdxFile:
        """Reads the header of a file.

        Args:
            path: The file.
            dims: The number of dimensions that it must have.

        Raises:
            TaskSetError: It cannot be read, or is no such file.
        """
        with _stream(path) as stream:
            header = stream.read(4 + 4 * dims)
        magic = bytes([0, 0, _UINT8, dims])
        if header[:4] != magic:
            raise TaskSetError(
                path,
                f"begins with {header[:4].hex(' ') or 'nothing'}",
                f"{magic.hex(' ')}, an idx file of uint8 in {dims} dimensions",
            )
        if len(header) < 4 + 4 * dims:
            raise TaskSetError(path, "ends within its header", "a whole idx file", _REMEDY)
        shape = tuple(np.frombuffer(header[4:], dtype=">u4").tolist())
        if not 0 < math.prod(shape) <= _MAX_BYTES:
            raise TaskSetError(
                path, f"claims the shape {list(shape)}", f"1 to {_MAX_BYTES} bytes", _REMEDY
            )
        return cls(path, shape)

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[Pixels]:
        """The numbers, ``[some of n, ...]`` at a time, so that few are held at once.

        Raises:
            TaskSetError: The file is damaged, or holds more or less than the header says.
        """
        row_bytes = math.prod(self.shape[1:])
        step = max(1, _BLOCK_BYTES // row_bytes)
        with _stream(self.path) as stream:
            stream.read(4 + 4 * len(self.shape))
            for start in range(0, len(self), step):
                rows = min(step, len(self) - start)
                data = stream.read(rows * row_bytes)
                if len(data) < rows * row_bytes:
                    self._raise_length("less")
                yield np.frombuffer(data, dtype=np.uint8).reshape(rows, *self.shape[1:])
            if stream.read(1):  # which is also when gzip compares its checksum
                self._raise_length("more")

    def _raise_length(self, how: str) -> None:
        raise TaskSetError(
            self.path, f"holds {how} than its header says", f"shape {list(self.shape)}", _REMEDY
        )


@contextmanager
def _stream(path: Path) -> Iterator[BinaryIO]:
    """The uncompressed bytes of a file.

    Raises:
        TaskSetError: They cannot be read.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TaskSetError(
            path, f"cannot be read ({reason})", "a whole idx file", _REMEDY
        ) from None
