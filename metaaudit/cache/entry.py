"""One file of the cache: sealed HDF5 that is whole and holds plain checksummed arrays, or no use.

A killed writer leaves an HDF5 file that opens and is partial, so ``complete`` is written last. HDF5
follows links, external storage and virtual data sets into other files, so there may be none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from metaaudit.cache.seal import (
    BLOCK_BYTES,
    FORMAT,
    DamagedError,
    Header,
    check_seal,
    write_seal,
)
from metaaudit.runs.hdf5 import writing

CHUNK_BYTES = 1 << 20

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Stored:
    """Arrays and the time that computing them took."""

    arrays: Arrays
    seconds: float


def write_entry(path: Path, key: str, stored: Stored) -> None:
    """Writes a new file.

    Raises:
        OSError: It could not be written.
    """
    with writing(path, userblock_size=BLOCK_BYTES) as file:
        for name, values in stored.arrays.items():
            _write_array(file, name, np.asarray(values))
        file.attrs["key"] = key
        file.attrs["format"] = FORMAT
        file.attrs["complete"] = True
    write_seal(path, stored.seconds)


def read_entry(path: Path, key: str) -> Stored:
    """Reads a file that ``write_entry`` wrote for this key.

    Raises:
        DamagedError: It is not whole, holds what must not be there, or is of another key or format.
        FileNotFoundError: There is none.
    """
    with _hdf5_errors():
        header = check_seal(path)
        if header.format != FORMAT:
            raise DamagedError(f"is of format {header.format}, not {FORMAT}")
        with h5py.File(path, "r") as file:
            _check(file, key)
            arrays = {name: _read_array(file[name]) for name in file}
        return Stored(arrays, header.seconds or 0.0)


def check_entry(path: Path, key: str) -> Header:
    """Checks all but the numbers, which the seal covers; of another format the seal alone.

    Args:
        path: The file.
        key: Its key, or how that begins.

    Raises:
        DamagedError: As ``read_entry``, except that another format is none.
        FileNotFoundError: There is none.
    """
    with _hdf5_errors():
        header = check_seal(path)
        if header.format == FORMAT:
            with h5py.File(path, "r") as file:
                _check(file, key)
        return header


def chunk_shape(values: npt.NDArray[Any]) -> tuple[int, ...]:
    """Whole rows, about a mebibyte a chunk."""
    row_bytes = max(1, values[:1].nbytes)
    rows = max(1, min(len(values), CHUNK_BYTES // row_bytes))
    return (rows, *(max(1, size) for size in values.shape[1:]))


def _write_array(file: h5py.File, name: str, values: npt.NDArray[Any]) -> None:
    if "/" in name:
        raise ValueError(f"{name!r} would be a group")
    rows = np.atleast_1d(values)  # a scalar has no chunks, and so no checksum
    dataset = file.create_dataset(
        name,
        data=rows,
        chunks=chunk_shape(rows),
        maxshape=tuple(size or None for size in rows.shape),  # HDF5 has no chunks of size 0 either
        fletcher32=True,
    )
    dataset.attrs["scalar"] = values.ndim == 0


def _read_array(dataset: h5py.Dataset) -> npt.NDArray[Any]:
    values = np.asarray(dataset[()])
    return values.reshape(()) if dataset.attrs["scalar"] else values


@contextmanager
def _hdf5_errors() -> Iterator[None]:
    """HDF5 can raise almost anything over a file that is not as it should be: all of it is damage.

    Raises:
        DamagedError: In its place.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise DamagedError(str(error)) from error


def _check(file: h5py.File, key: str) -> None:
    """Refuses a file that is not finished, is another's, or reads more than itself."""
    if not file.attrs["complete"]:
        raise DamagedError("was not finished")
    if file.attrs["format"] != FORMAT:
        raise DamagedError(f"is of format {file.attrs['format']}, not {FORMAT}")
    if not str(file.attrs["key"]).startswith(key):
        raise DamagedError("was written for another key")
    for name in file:
        # What a link leads to is not even opened.
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise DamagedError(f"{name} is a link")
        if file.get(name, getclass=True) is not h5py.Dataset:
            raise DamagedError(f"{name} is no data set")
        fault = _fault(file[name])
        if fault:
            raise DamagedError(f"{name} {fault}")


def _fault(dataset: h5py.Dataset) -> str:
    if dataset.external:
        return "is stored in another file"
    if dataset.is_virtual:
        return "is a virtual data set"
    return "" if dataset.fletcher32 else "has no checksum"
