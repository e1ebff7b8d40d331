"""Image files as arrays."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from metaaudit.errors import TaskSetError

Mode = Literal["L", "RGB"]

MAX_PIXELS = 1 << 24
"""Larger images are refused before they are decoded: a tiny file can claim any size."""

_FORMATS = ("PNG", "JPEG", "BMP")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def decode_image(data: bytes, size: int, where: object, mode: Mode = "L") -> npt.NDArray[np.uint8]:
    """Decodes and resizes one image.

    Args:
        data: Bytes of a PNG, JPEG or BMP file.
        size: Height and width of the result.
        where: What to call the image in messages.
        mode: ``L`` for greyscale, ``RGB`` for colour.

    Returns:
        ``[channels, size, size]``.

    Raises:
        TaskSetError: It is no such image, is truncated or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its mode is {image.mode}; 8 bits a channel are needed")
        # Converting comes first: 1-bit images are resized without interpolation.
        pixels = np.asarray(
            image.convert(mode).resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8
        )
    except _BOMB:
        raise TaskSetError(where, f"is an image of over {MAX_PIXELS} pixels") from None
    except _UNREADABLE as error:
        reason = "of no known kind" if "cannot identify" in str(error) else str(error)
        raise TaskSetError(
            where, f"is no readable image ({reason})", "a PNG, JPEG or BMP file"
        ) from None
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
