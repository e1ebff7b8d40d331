"""HDF5 files of others: read without following a link, or going to another file, for anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from metaaudit.errors import TaskSetError

DAMAGED = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""What reading a damaged file raises."""

_BLOCK_BYTES = 1 << 22
_MOST_COMPRESSED = 2000
"""Times that stored bytes can grow: deflate's limit is 1032. A tiny file can claim any size."""


def stored_inside(path: Path, group: Any, name: str) -> Any:
    """A dataset or a group of a group, whose content is in this very file.

    Args:
        path: What to call the file in messages.
        group: The ``h5py`` group, or file, that holds it.
        name: Its name there, without a slash.

    Raises:
        TaskSetError: It is a link, or a dataset that is kept in another file. Neither is opened.
    """
    where, remedy = f"{path}: {_below(group, name)}", "copy the data into the file"
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise TaskSetError(where, "is a link", "a dataset", remedy)
    found = group[name]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise TaskSetError(where, "is stored in another file", "a dataset", remedy)
    return found


def dataset_inside(path: Path, group: Any, name: str) -> Any:
    """Likewise, but a dataset.

    Raises:
        TaskSetError: It is something else.
    """
    found = stored_inside(path, group, name)
    if not isinstance(found, h5py.Dataset):
        raise TaskSetError(f"{path}: {_below(group, name)}", "is a group", "a dataset")
    return found


def group_inside(path: Path, group: Any, name: str) -> Any:
    """Likewise, but a group.

    Raises:
        TaskSetError: It is something else.
    """
    found = stored_inside(path, group, name)
    if not isinstance(found, h5py.Group):
        raise TaskSetError(f"{path}: {_below(group, name)}", "is a dataset", "a group")
    return found


def check_written(where: object, dataset: Any, rows: str) -> None:
    """Checks that what a dataset claims to hold was written to the file.

    Args:
        where: What to call the dataset in messages.
        dataset: The ``h5py`` dataset.
        rows: What to call its rows there.

    Raises:
        TaskSetError: Far less was.
    """
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > _MOST_COMPRESSED * stored:
        what = f"claims {dataset.shape[0]} {rows}, and {stored} bytes of them are stored"
        raise TaskSetError(where, what, f"{rows} that were written")


def blocks(dataset: Any) -> Iterator[npt.NDArray[Any]]:
    """The rows of a dataset, some at a time: whole chunks, and no more than fits easily."""
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64)))
    step = max(1, _BLOCK_BYTES // row_bytes)
    if dataset.chunks:
        step = max(1, step // dataset.chunks[0]) * dataset.chunks[0]
    for start in range(0, dataset.shape[0], step):
        yield np.asarray(dataset[start : start + step])


def _below(group: Any, name: str) -> str:
    return f"{group.name}/{name}".lstrip("/")
