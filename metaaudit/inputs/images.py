"""Image files as arrays, and arrays of images in the size and the colours that are asked for."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, features

from metaaudit.config.tasks import Colour
from metaaudit.errors import TaskSetError
from metaaudit.inputs.source import Pixels

MAX_PIXELS = 1 << 24
"""Larger images are refused before they are decoded: a tiny file can claim any size."""

_FORMATS = ("PNG", "JPEG", "BMP")
_MODES: dict[Colour, str] = {"grey": "L", "rgb": "RGB"}
CHANNELS: dict[Colour, int] = {"grey": 1, "rgb": 3}
"""Channels of an image."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def decode_image(data: bytes, size: int | None, where: object, colour: Colour = "grey") -> Pixels:
    """Decodes and resizes one image.

    Args:
        data: Bytes of a PNG, JPEG or BMP file.
        size: Height and width of the result; ``None`` keeps those of the file.
        where: What to call the image in messages.
        colour: Channels of the result.

    Returns:
        ``[channels, height, width]``.

    Raises:
        TaskSetError: It is no such image, is truncated or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # Of much that Pillow refuses by itself only later, and of transparency, which is lost.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its mode is {image.mode}; 8 bits a channel are needed")
            return _converted(image, size, colour)
    except Image.DecompressionBombError:
        raise TaskSetError(where, f"is an image of over {MAX_PIXELS} pixels") from None
    except _UNREADABLE as error:
        reason = "of no known kind" if "cannot identify" in str(error) else str(error)
        raise TaskSetError(
            where, f"is no readable image ({reason})", "a PNG, JPEG or BMP file"
        ) from None


def resized(pixels: Pixels, size: int | None, colour: Colour) -> Pixels:
    """Images that a file holds as an array, as ``decode_image`` would give them.

    Args:
        pixels: ``[n, 1 or 3, height, width]``.
        size: Height and width of the result; ``None`` keeps what they are.
        colour: Channels of the result.

    Returns:
        ``[n, channels, size, size]``; ``pixels`` itself where there is nothing to change.
    """
    shape = (CHANNELS[colour], *((size, size) if size else pixels.shape[2:]))
    if pixels.shape[1:] == shape:
        return pixels
    result = np.empty((len(pixels), *shape), dtype=np.uint8)
    for row, image in enumerate(pixels):
        flat = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        result[row] = _converted(Image.fromarray(flat), size, colour)
    return result


def decoding_versions() -> list[object]:
    """What pixels depend on besides a file's bytes: this code, and the libraries that decode."""
    return [
        Path(__file__).read_text(encoding="utf-8"),
        *(features.version(name) for name in ("pil", "jpg", "libjpeg_turbo", "zlib", "zlib_ng")),
    ]


def _converted(image: Image.Image, size: int | None, colour: Colour) -> Pixels:
    # Converting comes first: 1-bit images are resized without interpolation.
    image = image.convert(_MODES[colour])
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if colour == "grey" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
