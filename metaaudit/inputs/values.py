"""A pool of images whose values are as a configuration asks, and pixels that need no asking."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.config.tasks import ValuesConfig
from metaaudit.inputs.task_set import ImagePool


def image_pool(pixels: npt.NDArray[Any], ids: tuple[str, ...], image: ValuesConfig) -> ImagePool:
    """The pool of some images.

    Args:
        pixels: ``[n_images, ...]``, channels first.
        ids: One name an image.
        image: How a pixel becomes a value.

    Raises:
        TaskSetError: ``mean`` or ``std`` fits no image of this shape.
    """
    mean, std = tuple(image.mean or ()), tuple(image.std or ())
    return ImagePool(pixels, ids, image.scale, image.invert, mean, std)


def default_pixels(pool: ImagePool) -> npt.NDArray[Any]:
    """Pixels ``[n_images, ...]`` that give the model's inputs with default image options."""
    baked = pool.mean or pool.std
    if pool.pixels.dtype != np.uint8 and not baked:
        return pool.pixels
    if pool.scale != 255.0 or baked:
        return pool.values(np.arange(len(pool.pixels)))
    return np.asarray(255 - pool.pixels if pool.invert else pool.pixels)
