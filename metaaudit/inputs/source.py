"""What every format of images by class gives: their names, and their pixels when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageSource:
    """Images by class, from which tasks are sampled.

    Attributes:
        where: What to call the data set in messages.
        classes: Ids of the images of each class. Their order decides what is sampled: it must be
            the same wherever the data set lies. An id is unique in the data set and says nothing
            of where on this machine the image is.
        read: Takes ids, none of them twice, to their pixels ``[n, channels, height, width]``,
            uint8, decoding what is asked for and no more.
        splits: Classes of each of the data set's own splits, such as ``train`` and ``test``; empty
            where it has none.
        kinds: Classes that look alike have one kind, and a task has one class of a kind at most; a
            class that is not listed is a kind of its own.
    """

    where: Path
    classes: Mapping[str, Sequence[str]]
    read: Callable[[Sequence[str]], Pixels]
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def by_kind(self) -> list[list[str]]:
        """The classes of each kind, kinds in the order of their first class."""
        groups: dict[tuple[bool, str], list[str]] = {}
        for name in self.classes:
            listed = name in self.kinds
            groups.setdefault((listed, self.kinds.get(name, name)), []).append(name)
        return list(groups.values())

    def image_ids(self) -> Iterator[str]:
        """The ids of all images, class by class."""
        for ids in self.classes.values():
            yield from ids
