"""Images that a file holds as arrays, read a few at a time in the size and colours asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from metaaudit.config.tasks import ImageConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.images import CHANNELS, MAX_PIXELS, resized
from metaaudit.inputs.source import Pixels
from metaaudit.inputs.task_set import Ints

MAX_IMAGES = 1 << 24
"""A tiny file can claim any number."""

_BLOCK_BYTES = 1 << 24
_MAX_GAP = 16
"""Images that are read along rather than skipped."""


class Shaped(Protocol):
    """An array of images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``[n, height, width]``, or that and three channels."""


class StoredImages(Shaped, Protocol):
    """An array of images that is still in its file."""

    def block(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Some images, uint8.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is damaged.
        """


def check_images(where: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Checks that an array is one of images.

    Raises:
        TaskSetError: It is of another type or shape.
    """
    sides = shape[1:3]
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
        raise TaskSetError(
            where,
            f"is {dtype} {list(shape)}",
            "uint8 [images, height, width] or [images, height, width, 3]",
        )
    if 0 in shape or sides[0] * sides[1] > MAX_PIXELS or shape[0] > MAX_IMAGES:
        raise TaskSetError(
            where,
            f"has the shape {list(shape)}",
            f"1 to {MAX_IMAGES} images of 1 to {MAX_PIXELS} pixels",
        )


def read_images(
    stores: Mapping[str, tuple[object, StoredImages]], ids: Sequence[str], image: ImageConfig
) -> Pixels:
    """The images of some ids, ``<name of a store>/<row in it>``.

    Args:
        stores: Where each of the arrays is, for messages, and the array, by its name.
        ids: Which images.
        image: Size and colours of the result.

    Returns:
        ``[len(ids), channels, height, width]``.

    Raises:
        TaskSetError: A file cannot be read, or images differ in size and ``image.size`` does not
            say which to take.
    """
    wanted = rows_of(ids)
    shape = common_shape([stores[name] for name in wanted], image)
    pixels = np.empty((len(ids), CHANNELS[image.colour], *shape), dtype=np.uint8)
    for name, (rows, places) in wanted.items():
        where, store = stores[name]
        step = max(1, _BLOCK_BYTES // int(np.prod(store.shape[1:])))
        for low, high in _runs(rows.tolist(), step):
            first, last = int(rows[low]), int(rows[high - 1])
            try:
                block = store.block(first, last + 1)[rows[low:high] - first]
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise TaskSetError(where, f"cannot be read ({reason})", "a whole file") from None
            channels_first = block.reshape(*block.shape[:3], -1).transpose(0, 3, 1, 2)
            pixels[places[low:high]] = resized(channels_first, image.size, image.colour)
    return pixels


def rows_of(ids: Sequence[str]) -> dict[str, tuple[Ints, Ints]]:
    """By store, the rows of ids ``<name of a store>/<row in it>``, ascending, and their places."""
    pairs: dict[str, list[tuple[int, int]]] = {}
    for place, image_id in enumerate(ids):
        name, _, row = image_id.rpartition("/")
        pairs.setdefault(name, []).append((int(row), place))
    found = {name: np.array(sorted(one), dtype=np.int64) for name, one in pairs.items()}
    return {name: (one[:, 0], one[:, 1]) for name, one in found.items()}


def common_shape(stores: Sequence[tuple[object, Shaped]], image: ImageConfig) -> tuple[int, ...]:
    """Height and width of all images, once read.

    Args:
        stores: Where each of the arrays is, for messages, and the array.
        image: Size of the result.

    Raises:
        TaskSetError: They differ, and ``image.size`` does not say which to take.
    """
    if image.size is not None:
        return image.size, image.size
    first, store = stores[0]
    for where, other in stores:
        if other.shape[1:3] != store.shape[1:3]:
            raise TaskSetError(
                where,
                f"holds images of {other.shape[2]}x{other.shape[1]}, and {first} of "
                f"{store.shape[2]}x{store.shape[1]}",
                "one size",
                "set tasks.image.size",
            )
    return store.shape[1:3]


def _runs(rows: Sequence[int], step: int) -> Iterator[tuple[int, int]]:
    """Divides ascending rows into runs without large gaps, none of which spans over ``step``.

    >>> list(_runs([0, 1, 5, 100, 101], 50))
    [(0, 3), (3, 5)]
    """
    start = 0
    for place in range(1, len(rows) + 1):
        if (
            place == len(rows)
            or rows[place] - rows[place - 1] > _MAX_GAP
            or rows[place] - rows[start] >= step
        ):
            yield start, place
            start = place
