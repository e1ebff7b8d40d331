"""A pool of images whose values are as a configuration asks."""

from __future__ import annotations

from typing import Any

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
