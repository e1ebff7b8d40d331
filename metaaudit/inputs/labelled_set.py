"""A labelled data set, whatever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.source import ImageSource
from metaaudit.inputs.task_set import Ints


@dataclass(frozen=True)
class LabelledSet:
    """Labelled instances, whose inputs are read when needed.

    Attributes:
        where: What to call the set in messages.
        classes: Names of the labels.
        ids: One an instance; equal ids mean the same input.
        labels: ``[n]`` positions in ``classes``.
        read: Takes ids, none of them twice, to their inputs ``[len(ids), ...]``.
    """

    where: Path
    classes: tuple[str, ...]
    ids: Sequence[str]
    labels: Ints
    read: Callable[[Sequence[str]], npt.NDArray[Any]]

    @classmethod
    def of_images(cls, source: ImageSource) -> Self:
        """The images of a source, labelled by the position of their class."""
        counts = [len(ids) for ids in source.classes.values()]
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        return cls(
            source.where, tuple(source.classes), list(source.image_ids()), labels, source.read
        )
