"""Labelled data sets in ``.npz`` or HDF5 files.

===============  =============  ==================================================
array            shape          content
===============  =============  ==================================================
``x``            ``[n, ...]``   inputs, uint8 or floating point
``y``            ``[n]``        integer labels in ``0..classes-1``
``id``           ``[n]``        optional text; ``<file>/<row>`` if absent
``class_names``  ``[classes]``  optional text; the labels themselves if absent
===============  =============  ==================================================

Equal ids mean the same input, which must be equal wherever it occurs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metaaudit.errors import TaskSetError
from metaaudit.inputs.arrays import Array, open_arrays, write_arrays
from metaaudit.inputs.episode_names import Forms, SetNames, required
from metaaudit.inputs.gathered import Instances, check_text, instances
from metaaudit.inputs.labelled_set import LabelledSet
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.values import default_pixels

NAMES = (SetNames("x", "y", "id", "row"),)
KNOWN = (*required(NAMES), "id", "class_names")

CHUNK = 256
"""Instances that HDF5 compresses together."""


def read_labelled_arrays(path: Path) -> LabelledSet:
    """Reads a file of labelled instances.

    Raises:
        TaskSetError: The file cannot be read or breaks the format.
    """
    with open_arrays(path, KNOWN) as file:
        missing = [name for name in required(NAMES) if name not in file.names]
        if missing:
            raise TaskSetError(path, f"lacks {', '.join(missing)}", ", ".join(required(NAMES)))
        arrays = {name: file.read(name) for name in file.names if name != "x"}
        shape, dtype = file.form("x")
        shapes = {"x": shape, **{name: array.shape for name, array in arrays.items()}}
        dtypes = {"x": dtype, **{name: array.dtype for name, array in arrays.items()}}
        Forms(str(path), NAMES, shapes, dtypes, shared=0).check()
        classes, ids = _classes(path, arrays), _ids(path, arrays)
        x = file.read("x")
    found = instances(str(path), "row", x, arrays["y"], ids, most_ways=len(classes))
    first = _first_rows(path, found)

    def read(wanted: Sequence[str]) -> Array:
        pixels: Array = found.pixels[[first[one] for one in wanted]]
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)

    return LabelledSet(path, classes, ids, found.labels, read)


def write_labelled(path: Path, task_set: TaskSet) -> None:
    """Writes the instances of all batches, so that default image options give the same inputs.

    Raises:
        TaskSetError: The suffix is of no known kind.
        RunError: The folder cannot be written to.
    """
    rows = np.concatenate([task.query for task in task_set.tasks])
    write_arrays(
        path,
        {
            "x": default_pixels(task_set.pool)[rows],
            "y": np.concatenate([task.query_y for task in task_set.tasks]),
            "id": np.array([task_set.pool.ids[row] for row in rows]),
            "class_names": np.array(task_set.tasks[0].class_names),
        },
        rows=CHUNK,
    )


def _classes(path: Path, arrays: Mapping[str, Array]) -> tuple[str, ...]:
    """Names of the classes, which all labels are known to be of from now on."""
    labels = arrays["y"]
    names = tuple(str(name) for name in arrays.get("class_names", ()))
    if not names:
        there = np.unique(labels)
        if there[0] == 0 and (gaps := np.flatnonzero(there != np.arange(len(there)))).size:
            raise TaskSetError(
                f"{path}: y",
                f"has label {there[-1]} but not {gaps[0]}",
                "labels 0..classes-1",
                "renumber them, or give class_names",
            )
        names = tuple(map(str, range(len(there))))
    check_text(f"{path}: class_names", names)
    if len(set(names)) < len(names) or "" in names:
        raise TaskSetError(f"{path}: class_names", "has an empty or repeated name", "one a class")
    wrong = (labels < 0) | (labels >= len(names))
    if wrong.any():
        row = int(wrong.argmax())
        raise TaskSetError(
            f"{path}: y, row {row}", f"is {labels[row]}", f"0..{len(names) - 1}, the classes"
        )
    return names


def _ids(path: Path, arrays: Mapping[str, Array]) -> list[str]:
    if "id" not in arrays:
        return [f"{path.name}/{row}" for row in range(len(arrays["y"]))]
    ids = [str(one) for one in arrays["id"]]
    if "" in ids:
        raise TaskSetError(f"{path}: id, row {ids.index('')}", "is empty", "an id an instance")
    return ids


def _first_rows(path: Path, found: Instances) -> dict[str, int]:
    """The row of each input; those of equal ids must be equal."""
    first: dict[str, int] = {}
    for row, image_id in enumerate(found.ids):
        other = first.setdefault(image_id, row)
        if other != row and found.pixels[row].tobytes() != found.pixels[other].tobytes():
            raise TaskSetError(path, f"id '{image_id}' has two different inputs", "one input an id")
    return first
