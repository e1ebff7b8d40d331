"""The user block of a cache file: 512 bytes that HDF5 leaves alone.

It says what the file is, so that a folder can be listed without asking HDF5, and holds a SHA-256
over that and all that follows. It is checked before HDF5 sees the file: a flipped byte reads
silently where there is no checksum, and in HDF5's own structures it can crash the process.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

FORMAT = 3
"""Of the files that this version writes and reads; part of every key."""

BLOCK_BYTES = 512  # the smallest user block

UNVERSIONED = b"metaaudit; sha256 of what follows: "
"""How files of format 2 begin."""

HEADER = re.compile(
    rb"metaaudit cache; format (\d{1,9}); computed in (\d+\.\d+) s; sha256 [0-9a-f]{64}\n\0+"
)


class DamagedError(Exception):
    """A cache file that must not be used; the message says why."""


@dataclass(frozen=True)
class Header:
    """What the user block says.

    Attributes:
        format: Version of the format.
        seconds: Time that computing the arrays took; ``None`` in format 2, which kept it elsewhere.
    """

    format: int
    seconds: float | None


def write_seal(path: Path, seconds: float, version: int = FORMAT) -> None:
    """Fills the user block of a file that is otherwise finished."""
    start = f"metaaudit cache; format {version}; computed in {seconds:.6f} s; sha256 ".encode()
    with path.open("r+b") as file:
        block = _block(start, file)
        file.seek(0)
        file.write(block)


def read_header(path: Path) -> Header | None:
    """What the user block says, unchecked; ``None`` if it is none of ours.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return _parsed(file.read(BLOCK_BYTES))


def check_seal(path: Path) -> Header:
    """Reads the whole file and compares it with its seal.

    Raises:
        DamagedError: They differ.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        block = file.read(BLOCK_BYTES)
        header = _parsed(block)
        if header is None:
            raise DamagedError("does not begin as a cache file")
        unversioned = header.seconds is None
        start = UNVERSIONED if unversioned else block[: block.index(b"sha256 ") + len(b"sha256 ")]
        if block != _block(start, file, hashed=b"" if unversioned else start):
            raise DamagedError("checksum differs")
    return header


def _parsed(block: bytes) -> Header | None:
    if block.startswith(UNVERSIONED):
        return Header(2, None)
    found = HEADER.fullmatch(block)
    return Header(int(found[1]), float(found[2])) if found else None


def _block(start: bytes, file: BufferedIOBase, hashed: bytes | None = None) -> bytes:
    """The whole user block: ``start`` and the digest of it and of the file's content."""
    file.seek(BLOCK_BYTES)
    begun = start if hashed is None else hashed
    digest = hashlib.file_digest(file, lambda: hashlib.sha256(begun)).hexdigest()
    return (start + f"{digest}\n".encode()).ljust(BLOCK_BYTES, b"\0")
