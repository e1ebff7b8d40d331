"""Turned images as further classes: as good as new characters, where they look like none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from metaaudit.errors import TaskSetError
from metaaudit.inputs.source import ImageSource, Pixels

QUARTER = 90


def turned(source: ImageSource, angles: Sequence[int]) -> ImageSource:
    """The source and its images turned, the classes ``<class>@<angle>`` with ids ``<id>@<angle>``.

    A turned class is in the splits of its class. It is a kind of its own, unless its class is
    listed in ``kinds``: then it looks like the class, and no task has both.

    Args:
        source: What to turn.
        angles: 90, 180 or 270 degrees, counter-clockwise.

    Raises:
        TaskSetError: A class or an image has the name of a turned one; on reading, an image is not
            square.
    """
    if not angles:
        return source
    angles = sorted(angles)
    for name in (*source.classes, *source.image_ids()):
        if _base(name, angles) != (name, 0):
            raise TaskSetError(
                source.where,
                f"'{name}' is named as a turned one would be",
                "names without '@' and an angle at their end",
                "rename it, or remove tasks.rotations",
            )

    def widened(names: Sequence[str]) -> list[str]:
        return [*names, *(f"{name}@{angle}" for angle in angles for name in names)]

    classes = dict(source.classes)
    kinds = dict(source.kinds)
    for angle in angles:
        for name, ids in source.classes.items():
            classes[f"{name}@{angle}"] = [f"{image_id}@{angle}" for image_id in ids]
            if name in source.kinds:
                kinds[f"{name}@{angle}"] = source.kinds[name]
    splits = {split: widened(names) for split, names in source.splits.items()}
    read = _turning(source, angles)
    return replace(source, classes=classes, kinds=kinds, splits=splits, read=read)


def _turning(source: ImageSource, angles: Sequence[int]) -> Callable[[Sequence[str]], Pixels]:
    def read(ids: Sequence[str]) -> Pixels:
        wanted = [_base(image_id, angles) for image_id in ids]
        row_of: Mapping[str, int] = {
            base: row for row, base in enumerate(dict.fromkeys(base for base, _ in wanted))
        }
        upright = source.read(list(row_of))
        height, width = upright.shape[2:]
        if height != width and any(angle % (2 * QUARTER) for _, angle in wanted):
            raise TaskSetError(
                source.where,
                f"its images are {width}x{height}, and a quarter turn makes them another size",
                "square images",
                "set tasks.image.size",
            )
        pixels = np.empty((len(ids), *upright.shape[1:]), dtype=np.uint8)
        for row, (base, angle) in enumerate(wanted):
            pixels[row] = np.rot90(upright[row_of[base]], angle // QUARTER, axes=(1, 2))
        return pixels

    return read


def _base(name: str, angles: Sequence[int]) -> tuple[str, int]:
    """The name of what was turned, and by how much; of what was not, its name and 0.

    >>> _base("Greek/character01@90", [90, 180])
    ('Greek/character01', 90)
    >>> _base("Greek/character01@270", [90, 180])
    ('Greek/character01@270', 0)
    """
    base, _, angle = name.rpartition("@")
    return (base, int(angle)) if angle in map(str, angles) else (name, 0)
