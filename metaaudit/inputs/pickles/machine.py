"""The machine that runs pickles: what its instructions work on."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from metaaudit.inputs.pickles.arrays import (
    NAMES,
    StoredArray,
    StoredBytes,
    StoredDType,
    UnfitError,
)

MAX_STEPS = 1 << 22
"""Instructions of a pickle: each takes a byte there, and a hundred here."""

KEPT_BYTES = 1 << 16
"""Longer bytes stay in the file."""

_MAX_LINE = 1 << 12
_MAX_ARGS = 9
_MAX_KEY_BITS = 64  # larger numbers can be chosen to have equal hashes
_KEYS = (str, bytes, int, float, bool, type(None))  # no tuples: hashing nested ones recurses
DAMAGED = "is damaged or no pickle"

Steps = Mapping[bytes, Callable[["Machine"], None]]


class Machine:
    """A stack, the marks on it, what was remembered, and the file.

    Args:
        path: The pickle, for what is read of it later.
        stream: The same, opened.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.size = os.fstat(stream.fileno()).st_size
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left = 2 * self.size + (1 << 20)

    def run(self, steps: Steps, refused: Mapping[bytes, str]) -> Any:
        """Runs the pickle and returns its value.

        Args:
            steps: What each instruction does.
            refused: What to say of those that are known and not taken.

        Raises:
            UnfitError: It does what it may not, or is damaged.
            ValueError: It is damaged, as with any of ``pickles.DAMAGED``.
            OSError: The file cannot be read.
        """
        for _ in range(MAX_STEPS):
            code = self.take(1)
            if code == pickle.STOP:
                return self.pop()
            if code not in steps:
                raise UnfitError(refused.get(code, DAMAGED))
            steps[code](self)
        raise UnfitError(f"has over {MAX_STEPS} instructions")

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Takes the last value after the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise UnfitError(DAMAGED)
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Takes the last mark and all values after it."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def drop(self) -> None:
        """Takes the last value, or the mark if none is after it."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def take(self, count: int) -> bytes:
        """The next bytes of the file; nothing is allocated for more than there are."""
        if count > KEPT_BYTES and count > self.size - self.stream.tell():
            raise UnfitError("ends early")
        data = self.stream.read(count)
        if len(data) < count:
            raise UnfitError("ends early")
        return data

    def number(self, size: int) -> int:
        """The next number, without a sign."""
        return int.from_bytes(self.take(size), "little")

    def line(self, limit: int = _MAX_LINE) -> bytes:
        """The rest of the line."""
        data = self.stream.readline(limit)
        if data[-1:] != b"\n":
            raise UnfitError(DAMAGED)
        return data[:-1]

    def payload(self, count: int) -> bytes | StoredBytes:
        """The next bytes or, if they are many, where they are."""
        if count <= KEPT_BYTES:
            return self.take(count)
        offset = self.stream.tell()
        if count > self.size - offset:
            raise UnfitError("ends early")
        self.stream.seek(count, os.SEEK_CUR)
        return StoredBytes(offset, count)

    def push_python2_text(self, count: int) -> None:
        """Puts text on the stack, or bytes: they are one thing there."""
        data = self.payload(count)
        self.push(data.decode("latin1") if isinstance(data, bytes) else data)

    def push_unicode(self, count: int) -> None:
        """Puts text on the stack."""
        self.push(self.take(count).decode("utf-8", "surrogatepass"))

    def push_name(self, module: object, name: object) -> None:
        """Puts what a name stands for on the stack."""
        if type(module) is not str or type(name) is not str:
            raise UnfitError(DAMAGED)
        if (module, name) not in NAMES:
            raise UnfitError(f"asks to run {shown(module)}.{shown(name)}")
        self.push(NAMES[module, name])

    def extend(self, items: list[Any]) -> None:
        """Appends to the list that is last on the stack."""
        if type(self.stack[-1]) is not list:
            raise UnfitError(DAMAGED)
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Adds keys and values, in turn, to the dictionary that is last on the stack."""
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise UnfitError(DAMAGED)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in _KEYS:
                raise UnfitError(f"has a {type(key).__name__} as a key")
            if type(key) is int and key.bit_length() > _MAX_KEY_BITS:
                raise UnfitError("has a number of many bytes as a key")
            target[key] = value

    def build(self, state: Any) -> None:
        """Completes the type or the array that is last on the stack."""
        target = self.stack[-1]
        if not isinstance(target, (StoredDType, StoredArray)):
            raise UnfitError(f"asks to change a {type(target).__name__}")
        self.spend(state)
        target.build(state)

    def spend(self, args: Any) -> None:
        """Counts what is copied or looked through: something in the file is used once or twice.

        A small file could otherwise have long text or bytes copied millions of times.
        """
        if type(args) is not tuple or len(args) > _MAX_ARGS:
            raise UnfitError(DAMAGED)
        self.left -= sum(len(arg) for arg in args if isinstance(arg, (str, bytes, list)))
        if self.left < 0:
            raise UnfitError("uses what it holds again and again")


def shown(name: str) -> str:
    """A name of a pickle, which may be anything, in a message."""
    return ascii(name[:60])[1:-1]
