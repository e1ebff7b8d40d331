"""Named arrays in ``.npz`` or HDF5 files: read without pickle or links, written atomically."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from metaaudit.errors import TaskSetError
from metaaudit.inputs.hdf5_files import DAMAGED, blocks, check_written, dataset_inside
from metaaudit.inputs.npz_files import NpzArrays
from metaaudit.runs.atomic import replacing
from metaaudit.runs.hdf5 import writing

Array = npt.NDArray[Any]

SUFFIXES = (".npz", ".h5", ".hdf5")
_DAMAGED = (*DAMAGED, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)


class _Stored(Protocol):
    """What a kind of file has to tell of its arrays."""

    names: tuple[str, ...]

    def form(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]: ...

    def whole(self, name: str) -> Array: ...

    def rows(self, name: str) -> Iterator[Array]: ...


@dataclass(frozen=True)
class ArrayFile:
    """An open file of arrays. Its methods raise a ``TaskSetError`` where it turns out damaged.

    Attributes:
        path: The file.
        stored: Its arrays.
    """

    path: Path
    stored: _Stored

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return self.stored.names

    def form(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, without reading it."""
        with _readable(self.path):
            return self.stored.form(name)

    def read(self, name: str) -> Array:
        """A whole array. Text comes as a string array, whatever the file's kind."""
        with _readable(self.path):
            return _decoded(self.path, name, self.stored.whole(name))

    def rows(self, name: str) -> Iterator[Array]:
        """The rows of an array, of which only a few are held at a time."""
        rows = self.stored.rows(name)
        while True:
            with _readable(self.path):
                row = next(rows, None)
            if row is None:
                return
            yield row


@contextmanager
def open_arrays(path: Path, known: Collection[str]) -> Iterator[ArrayFile]:
    """Opens a file of arrays.

    Args:
        path: The file.
        known: Names that the file may hold.

    Raises:
        TaskSetError: The file is missing, damaged, of another kind, holds other names, or would
            need pickle or another file to be read.
    """
    check_suffix(path)
    with ExitStack() as stack:
        with _readable(path):
            if not path.is_file():
                what = "is a folder" if path.is_dir() else "does not exist"
                raise TaskSetError(path, what, f"a file ({', '.join(SUFFIXES)})", "check the path")
            kind: Callable[[Path, ExitStack], _Stored]
            kind = NpzArrays if path.suffix == ".npz" else _Hdf5Arrays
            stored = kind(path, stack)
            _check_names(path, stored.names, known)
        yield ArrayFile(path, stored)


def write_arrays(path: Path, arrays: Mapping[str, Array], rows: int = 1) -> None:
    """Writes the arrays, compressed and, in HDF5, checksummed and with text as fixed-length UTF-8.

    Args:
        path: The file.
        arrays: By name.
        rows: Of an array that HDF5 compresses together.

    Raises:
        TaskSetError: The suffix is of no known kind.
        RunError: The folder cannot be written to.
    """
    check_suffix(path)
    with replacing(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("wb") as stream:
                np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        else:
            with writing(temporary) as file:
                for name, array in arrays.items():
                    _write_dataset(file, name, array, rows)


def check_suffix(path: Path) -> None:
    """Raises a ``TaskSetError`` if the suffix names no known kind of file."""
    if path.suffix not in SUFFIXES:
        raise TaskSetError(path, f"has the suffix '{path.suffix}'", f"one of {', '.join(SUFFIXES)}")


class _Hdf5Arrays:
    """The datasets of an HDF5 file, none of them in a group."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._file = stack.enter_context(h5py.File(path, "r"))
        self.names = tuple(self._file)

    def form(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        dataset = self._dataset(name)
        return dataset.shape, dataset.dtype

    def whole(self, name: str) -> Array:
        dataset = self._dataset(name)
        np.empty(dataset.shape, dataset.dtype)  # asks for no memory yet, but fails if it is absurd
        if dataset.shape:
            check_written(f"{self._path}: {name}", dataset, "rows")
        text = h5py.check_string_dtype(dataset.dtype) is not None
        return np.asarray(dataset[()], dtype=bytes) if text else np.asarray(dataset[()])

    def rows(self, name: str) -> Iterator[Array]:
        dataset = self._dataset(name)
        check_written(f"{self._path}: {name}", dataset, "rows")
        for block in blocks(dataset):
            yield from block

    def _dataset(self, name: str) -> Any:
        dataset = dataset_inside(self._path, self._file, name)
        if dataset.shape is None:
            raise TaskSetError(f"{self._path}: {name}", "is empty", "an array")
        return dataset


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise TaskSetError(
            path, f"cannot be read ({error})", f"a whole {path.suffix} file", "write it again"
        ) from None
    except MemoryError:
        raise TaskSetError(path, "does not fit into memory") from None


def _write_dataset(file: Any, name: str, array: Array, rows: int) -> None:
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
        kind = h5py.string_dtype("utf-8", max(1, array.dtype.itemsize))
        array = array.astype(kind)
    chunks = (min(rows, len(array)), *array.shape[1:]) if array.size else None
    options = {"chunks": chunks, "compression": "gzip", "fletcher32": True} if chunks else {}
    file.create_dataset(name, data=array, **options)


def _check_names(path: Path, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise TaskSetError(
                path, f"holds an unknown array '{name}'", f"only {', '.join(known)}", "remove it"
            )


def _decoded(path: Path, name: str, array: Array) -> Array:
    if array.dtype.kind != "S":
        return array
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError:
        raise TaskSetError(f"{path}: {name}", "is no text", "UTF-8") from None
