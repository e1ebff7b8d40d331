"""Small pictures of what the reports show, bounded in number and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from metaaudit.inputs.task_set import SETS, ImagePool, SetName, TaskSet

MAX_SIDE = 64

Place = tuple[int, SetName, int]
"""``(task row, set, index)`` of one occurrence."""


@dataclass(frozen=True)
class Thumbnails:
    """Pictures and the occurrences that they show.

    Attributes:
        pixels: ``[n, height, width]`` or ``[n, height, width, 3]``, uint8.
        places: Of length ``n``.
    """

    pixels: npt.NDArray[np.uint8]
    places: list[Place]


def thumbnails(
    task_set: TaskSet, whole_tasks: list[int], worst_instances: list[Place]
) -> Thumbnails | None:
    """Pictures of all instances of some tasks and of some single instances, each once.

    A single instance whose picture is there already, since it occurs elsewhere too, adds none.

    Returns:
        ``None`` where the inputs are no images with 1 or 3 channels.
    """
    shape = task_set.pool.input_shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
        return None
    places = [
        (row, name, index)
        for row in dict.fromkeys(whole_tasks)
        for name in SETS
        for index in range(len(task_set.tasks[row].rows(name)))
    ]
    there = {_pool_row(task_set, place) for place in places}
    for place in worst_instances:
        if (pool_row := _pool_row(task_set, place)) not in there:
            there.add(pool_row)
            places.append(place)
    if not places:
        return None
    pictures = [_picture(task_set.pool, _pool_row(task_set, place)) for place in places]
    return Thumbnails(np.stack(pictures), places)


def _pool_row(task_set: TaskSet, place: Place) -> int:
    row, name, index = place
    return int(task_set.tasks[row].rows(name)[index])


def _picture(pool: ImagePool, row: int) -> npt.NDArray[np.uint8]:
    pixels = pool.pixels[row]
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = ((pixels - low) * (255.0 / ((high - low) or 1.0))).round().astype(np.uint8)
    if pixels.ndim == 3:
        pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(image, dtype=np.uint8)
