"""What several code bases call the arrays of ready-made tasks, and what those arrays must be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.config.tasks import JoinedConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.gathered import check_text

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

TEXTS = ("task_id", "support_id", "query_id", "class_names")
"""Names of optional arrays of text."""

_INPUTS = tuple(np.dtype(name) for name in ("uint8", "float16", "float32", "float64"))


@dataclass(frozen=True)
class SetNames:
    """Names of the arrays of one set.

    Attributes:
        inputs: Of its inputs.
        labels: Of its labels.
        ids: Of its ids; empty where they have none.
        called: What an instance is called, before its index.
    """

    inputs: str
    labels: str
    ids: str
    called: str


Naming = tuple[SetNames, ...]
"""The sets of a file, the one that others are compared with first."""


def _pair(*names: str) -> Naming:
    support_x, support_y, query_x, query_y = names
    return (
        SetNames(support_x, support_y, "support_id", "support"),
        SetNames(query_x, query_y, "query_id", "query"),
    )


OWN = _pair("support_x", "support_y", "query_x", "query_y")
"""Names of this project, which it writes too."""

JOINED: Naming = (SetNames("data", "labels", "", "data"),)
"""Support and query together, as learn2learn's tasks have them."""

NAMINGS: tuple[Naming, ...] = (
    OWN,
    _pair("x_spt", "y_spt", "x_qry", "y_qry"),  # MAML-Pytorch
    _pair("train_inputs", "train_targets", "test_inputs", "test_targets"),  # torchmeta's batches
    JOINED,
)


def required(naming: Naming) -> list[str]:
    """Names of the arrays that there must be."""
    return [name for names in naming for name in (names.inputs, names.labels)]


KNOWN = tuple(dict.fromkeys((*(n for naming in NAMINGS for n in required(naming)), *TEXTS)))
"""All names that an array may have."""


def naming_of(where: object, names: Collection[str], joined: JoinedConfig | None) -> Naming:
    """The naming that a file follows.

    Args:
        where: What to call the file in messages.
        names: Names of its arrays.
        joined: How it is to be cut, if support and query are together.

    Raises:
        TaskSetError: It follows none, or more than one, or ``joined`` is for another one.
    """
    found = [naming for naming in NAMINGS if not set(required(naming)).isdisjoint(names)]
    if len(found) > 1:
        first, second = (next(n for n in required(naming) if n in names) for naming in found[:2])
        raise TaskSetError(where, f"holds '{first}' and '{second}'", "the arrays of one naming")
    naming = found[0] if found else OWN
    missing = [name for name in required(naming) if name not in names]
    if missing:
        raise TaskSetError(where, f"lacks {', '.join(missing)}", ", ".join(required(naming)))
    if naming is JOINED and joined is None:
        raise TaskSetError(
            where,
            "holds data and labels, support and query together",
            "tasks.joined, which says how to cut them",
            "set tasks.joined.shots",
        )
    if naming is not JOINED and joined is not None:
        what = f"holds {required(naming)[0]}, and tasks.joined is for files with data and labels"
        raise TaskSetError(where, what, remedy="remove tasks.joined")
    for name in ("support_id", "query_id"):
        if naming is JOINED and name in names:
            raise TaskSetError(where, f"holds '{name}' and 'data'", "the arrays of one naming")
    return naming


@dataclass(frozen=True)
class Forms:
    """What arrays are, before any is used.

    Attributes:
        where: What they are in: a file, or a task.
        naming: Their names.
        shapes: Their shapes.
        dtypes: Their types.
        shared: How many first dimensions all of them share: one, that of tasks, or none.
    """

    where: str
    naming: Naming
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, np.dtype[Any]]
    shared: int

    def check(self) -> None:
        """Checks that the arrays fit together and that their types can be used.

        Raises:
            TaskSetError: One does not.
        """
        self._check_shapes()
        first = self.dtypes[self.naming[0].inputs]
        inputs, labels = zip(*((names.inputs, names.labels) for names in self.naming), strict=True)
        texts = {*TEXTS, *(names.ids for names in self.naming)}
        for name, dtype in self.dtypes.items():
            where, got = f"{self.where}: {name}", f"has dtype {dtype}"
            if name in texts and dtype.kind != "U":
                raise TaskSetError(where, got, "text", "array.astype(str)")
            if name in labels and dtype.kind not in "iu":
                raise TaskSetError(where, got, "integers", "array.astype('int64')")
            if name in inputs and dtype.newbyteorder("=") not in _INPUTS:
                raise TaskSetError(where, got, "uint8, float16, float32 or float64", "convert it")
            if name in inputs and dtype != first:
                raise TaskSetError(where, got, f"{first}, as {self.naming[0].inputs}")

    def _check_shapes(self) -> None:
        first = self.naming[0].inputs
        shape = self.shapes[first]
        if len(shape) < self.shared + 2:
            axes = ["tasks", "instances"][1 - self.shared :]
            raise TaskSetError(
                f"{self.where}: {first}", f"has shape {shape}", f"[{', '.join(axes)}, ...]"
            )
        shared, one = shape[: self.shared], shape[self.shared + 1 :]
        for names in self.naming:
            slots = self.shapes[names.inputs][self.shared : self.shared + 1]
            self._check_shape(names.inputs, (*shared, *slots, *one))
            self._check_shape(names.labels, (*shared, *slots))
            self._check_shape(names.ids, (*shared, *slots))
            if 0 in self.shapes[names.inputs]:
                raise TaskSetError(
                    f"{self.where}: {names.inputs}",
                    f"has shape {self.shapes[names.inputs]}",
                    "at least one of each",
                )
        self._check_shape("task_id", shared)
        width = self.shapes.get("class_names", ())[self.shared : self.shared + 1]
        self._check_shape("class_names", (*shared, *(width or (0,))))

    def _check_shape(self, name: str, shape: Shape) -> None:
        found = self.shapes.get(name, shape)
        if found != shape:
            raise TaskSetError(
                f"{self.where}: {name}",
                f"has shape {found}",
                f"{shape}, to match {self.naming[0].inputs}",
            )


def check_texts(where: str, arrays: Mapping[str, Array]) -> None:
    """Checks arrays of text, whose types are known to be right.

    Raises:
        TaskSetError: One holds what would break a line of a report.
    """
    for name in TEXTS:
        if name in arrays:
            check_text(f"{where}: {name}", arrays[name].flat)
