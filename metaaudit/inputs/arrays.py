"""Named arrays in ``.npz`` or HDF5 files: read without pickle or links, written atomically."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from metaaudit.errors import TaskSetError
from metaaudit.runs.atomic import replacing
from metaaudit.runs.hdf5 import writing

Array = npt.NDArray[Any]

SUFFIXES = (".npz", ".h5", ".hdf5")
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: Path, known: Collection[str]) -> dict[str, Array]:
    """Reads all arrays of a file. Text comes as a string array, whatever the file's kind.

    Args:
        path: The file.
        known: Names that the file may hold.

    Raises:
        TaskSetError: The file is missing, damaged, too large for memory, of another kind, holds
            other names, or would need pickle or another file to be read.
    """
    check_suffix(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise TaskSetError(path, what, f"a file ({', '.join(SUFFIXES)})", "check the path")
        return _read_npz(path, known) if path.suffix == ".npz" else _read_hdf5(path, known)
    except _DAMAGED as error:
        raise TaskSetError(
            path, f"cannot be read ({error})", f"a whole {path.suffix} file", "write it again"
        ) from None
    except MemoryError:
        raise TaskSetError(path, "does not fit into memory") from None


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes the arrays, compressed and, in HDF5, checksummed and with text as fixed-length UTF-8.

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
                    _write_dataset(file, name, array)


def check_suffix(path: Path) -> None:
    """Raises a ``TaskSetError`` if the suffix names no known kind of file."""
    if path.suffix not in SUFFIXES:
        raise TaskSetError(path, f"has the suffix '{path.suffix}'", f"one of {', '.join(SUFFIXES)}")


def _read_npz(path: Path, known: Collection[str]) -> dict[str, Array]:
    # An own stream: NumPy leaves the one it opens for a damaged file to the garbage collector.
    with path.open("rb") as stream:
        file = np.load(stream, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise TaskSetError(path, "holds one array", "arrays with names", "write with np.savez")
        _check_names(path, file.files, known)
        return {name: _decoded(path, name, _read_member(path, file, name)) for name in file.files}


def _read_member(path: Path, file: Any, name: str) -> Array:
    try:
        return np.asarray(file[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise TaskSetError(
            f"{path}: {name}", "holds Python objects", "a plain array", "array.astype(str) for text"
        ) from None


def _read_hdf5(path: Path, known: Collection[str]) -> dict[str, Array]:
    with h5py.File(path, "r") as file:
        _check_names(path, list(file), known)
        for name in file:
            _check_stored_inside(path, file, name)
        arrays = {}
        for name, dataset in file.items():
            text = h5py.check_string_dtype(dataset.dtype) is not None
            value = np.asarray(dataset[()], dtype=bytes) if text else np.asarray(dataset[()])
            arrays[name] = _decoded(path, name, value)
        return arrays


def _check_stored_inside(path: Path, file: Any, name: str) -> None:
    """Refuses what HDF5 would follow to another file, before it is opened."""
    where, remedy = f"{path}: {name}", "copy the data into the file"
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise TaskSetError(where, "is a link", "a dataset", remedy)
    if not isinstance(file[name], h5py.Dataset):
        raise TaskSetError(where, "is a group", "a dataset")
    if file[name].external or file[name].is_virtual:
        raise TaskSetError(where, "is stored in another file", "a dataset", remedy)


def _write_dataset(file: Any, name: str, array: Array) -> None:
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
        kind = h5py.string_dtype("utf-8", max(1, array.dtype.itemsize))
        array = array.astype(kind)
    chunks = (1, *array.shape[1:]) if array.size else None
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
