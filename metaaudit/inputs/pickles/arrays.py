"""NumPy's arrays and the few other objects that pickles of data sets hold, by the names there.

A pickle says what is to be called with what. Nothing that it names is imported or called here: a
name that is known stands for one of ``Name``, and ``made`` does what is harmless of what it would.
Arrays are described first and read later, if at all, so that nothing is allocated because a file
claims a shape.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|c(8|16)")
_TEXT = re.compile(r"[SU][1-9]\d{0,3}")
_OBJECTS = re.compile(r"O[48]?")
_MAX_DIMS = 32


class UnfitError(Exception):
    """What a pickle asks for is not what NumPy would write, or is not taken."""


class Name(Enum):
    """What a pickle may name."""

    RECONSTRUCT = auto()
    NDARRAY = auto()
    DTYPE = auto()
    SCALAR = auto()
    FROMBUFFER = auto()
    ENCODE = auto()
    BYTES = auto()
    BYTEARRAY = auto()
    ORDERED_DICT = auto()


NAMES: dict[tuple[str, str], Name] = {
    ("numpy", "ndarray"): Name.NDARRAY,
    ("numpy", "dtype"): Name.DTYPE,
    ("_codecs", "encode"): Name.ENCODE,
    ("collections", "OrderedDict"): Name.ORDERED_DICT,
    **{
        (f"numpy.{core}.multiarray", name): token
        for core in ("core", "_core")  # of NumPy 1 and 2
        for name, token in (("_reconstruct", Name.RECONSTRUCT), ("scalar", Name.SCALAR))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): Name.FROMBUFFER for core in ("core", "_core")},
    **{
        (builtins, name): token
        for builtins in ("__builtin__", "builtins")  # of Python 2 and 3
        for name, token in (("bytes", Name.BYTES), ("bytearray", Name.BYTEARRAY))
    },
}
"""By module and name."""


@dataclass(frozen=True)
class StoredBytes:
    """Bytes that stay in the file: they are many."""

    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


@dataclass
class StoredDType:
    """A type of numbers or text.

    Attributes:
        code: Kind and size, such as ``u1``.
        order: Order of bytes.
    """

    code: str
    order: str = "|"

    @property
    def holds_objects(self) -> bool:
        """Whether arrays of it are lists of objects."""
        return _OBJECTS.fullmatch(self.code) is not None

    @property
    def numpy(self) -> np.dtype[Any]:
        """NumPy's type."""
        return np.dtype("O" if self.holds_objects else self.code).newbyteorder(
            cast(Any, self.order)
        )

    def build(self, state: object) -> None:
        """Takes over what NumPy would set after making it."""
        if not (type(state) is tuple and len(state) == 8):
            raise UnfitError("holds a dtype of an unknown kind")
        if not _one_of(state[1], "<>|=") or any(part is not None for part in state[2:5]):
            raise UnfitError("holds an array of records")
        self.order = state[1]


@dataclass
class StoredArray:
    """An array of a pickle, whose numbers are read when they are asked for.

    Attributes:
        path: The pickle.
        shape: Its shape.
        dtype: Its type; ``object`` where it holds objects, which are text.
        order: ``C`` or ``F``, or which axis of a C array each axis is.
        data: Its numbers, or its texts.
    """

    path: Path
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("u1"))
    order: str | tuple[int, ...] = "C"
    data: bytes | StoredBytes | list[str] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def build(self, state: object) -> None:
        """Takes over what NumPy would set after making it: version, shape, type, order, numbers."""
        if not (type(state) is tuple and len(state) == 5 and type(state[2]) is StoredDType):
            raise UnfitError("holds an array of an unknown kind")
        _, shape, dtype, fortran, data = state
        if type(fortran) not in (bool, int):
            raise UnfitError("holds an array in an unknown order")
        if type(data) is str:  # from Python 2
            data = data.encode("latin1")
        self.fill(shape, dtype, "F" if fortran else "C", data)

    def fill(self, shape: object, dtype: StoredDType, order: object, data: object) -> None:
        """Sets all but the path, once it is known to fit together."""
        self.shape, self.dtype = _shape(shape), dtype.numpy
        count = math.prod(self.shape)
        if dtype.holds_objects:
            if type(data) is not list or len(data) != count:
                raise UnfitError("holds an array of objects that is damaged")
            if not all(type(item) is str for item in data):
                raise UnfitError("holds an array of objects; only those of text are read")
            data = list(data)  # the pickle can go on and add to its own
        elif not isinstance(data, (bytes, StoredBytes)) or (
            len(data) != count * self.dtype.itemsize
        ):
            raise UnfitError(f"holds an array that is not as long as its shape {self.shape} says")
        if not (_one_of(order, "CF") or _is_permutation(order, len(self.shape))):
            raise UnfitError("holds an array in an unknown order")
        self.order, self.data = cast(Any, order), cast(Any, data)
        if isinstance(self.order, tuple):
            self.shape = tuple(self.shape[axis] for axis in self.order)

    def whole(self) -> Array:
        """All of it.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is no longer as it was.
        """
        if isinstance(self.data, StoredBytes):
            self.data = self._read(self.data.offset, self.data.length)
        if isinstance(self.data, bytes):
            flat = np.frombuffer(self.data, self.dtype)
        else:
            flat = np.empty(len(self.data or ()), object)
            flat[:] = self.data or ()
        if isinstance(self.order, tuple):
            stored = [self.shape[self.order.index(axis)] for axis in range(len(self.order))]
            return flat.reshape(stored).transpose(self.order)
        return flat.reshape(self.shape, order=cast(Any, self.order))

    def block(self, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop``; no more than these are read, if they lie side by side.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is no longer as it was.
        """
        if not isinstance(self.data, StoredBytes) or self.order != "C":
            return self.whole()[start:stop]
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        offset = self.data.offset + start * row_bytes
        flat = np.frombuffer(self._read(offset, (stop - start) * row_bytes), self.dtype)
        return flat.reshape(stop - start, *self.shape[1:])

    def _read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
        if len(data) < length:
            raise ValueError("it became shorter")
        return data


def made(name: Name, args: tuple[Any, ...], path: Path) -> Any:
    """What a pickle asks for by a name with some arguments.

    Raises:
        UnfitError: NumPy and Python write no such thing.
    """
    if name is Name.RECONSTRUCT and len(args) == 3 and args[0] is Name.NDARRAY:
        return StoredArray(path)
    if name is Name.FROMBUFFER and len(args) in (4, 5) and type(args[1]) is StoredDType:
        array = StoredArray(path)
        order = args[4] if _one_of(args[3], "K") else args[3]
        array.fill(args[2], args[1], order, args[0])
        return array
    if name is Name.DTYPE and args and type(args[0]) is str:
        return _dtype(args[0])
    if name is Name.SCALAR and len(args) == 2 and type(args[0]) is StoredDType:
        return _scalar(args[0], args[1])
    if name is Name.ORDERED_DICT and not args:
        return {}
    if name in (Name.BYTES, Name.BYTEARRAY) and not args:
        return b""
    if name is Name.BYTEARRAY and len(args) == 1 and isinstance(args[0], (bytes, StoredBytes)):
        return args[0]
    if name in (Name.ENCODE, Name.BYTEARRAY) and _is_text_of_bytes(args):
        return args[0].encode("latin1")
    raise UnfitError(f"asks to run {name.name.lower()} in an unknown way")


def _is_text_of_bytes(args: tuple[object, ...]) -> bool:
    return [type(arg) for arg in args] == [str, str] and args[1] in ("latin1", "latin-1")


def _dtype(code: str) -> StoredDType:
    if not any(kind.fullmatch(code) for kind in (_NUMBERS, _TEXT, _OBJECTS)):
        raise UnfitError(f"holds an array of type {code[:20]!a}")
    return StoredDType(code)


def _scalar(dtype: StoredDType, data: object) -> Any:
    if type(data) is str:
        data = data.encode("latin1")
    if dtype.holds_objects or type(data) is not bytes or len(data) != dtype.numpy.itemsize:
        raise UnfitError("holds a number that is damaged")
    return np.frombuffer(data, dtype.numpy)[0]


def _shape(shape: object) -> tuple[int, ...]:
    if not (
        type(shape) is tuple
        and len(shape) <= _MAX_DIMS
        and all(type(size) is int and 0 <= size < 2**40 for size in shape)
    ):
        raise UnfitError("holds an array with a shape that cannot be")
    return shape


def _is_permutation(order: object, count: int) -> bool:
    if type(order) is not tuple or len(order) != count:
        return False
    return all(type(axis) is int for axis in order) and set(order) == set(range(count))


def _one_of(value: object, characters: str) -> bool:
    """Whether a value is one of some characters; it may be of a type that compares oddly."""
    return type(value) is str and len(value) == 1 and value in characters
