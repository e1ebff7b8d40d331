"""Decoding of image files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from metaaudit.errors import TaskSetError
from metaaudit.inputs.images import decode_image


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        chunks += struct.pack(">I", len(data)) + kind + data + checksum
    return b"\x89PNG\r\n\x1a\n" + chunks


CHECKERED = Image.fromarray((np.indices((100, 100)).sum(0) % 2).astype(bool))
WHOLE = png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8)))

BAD = [
    (b"", "no readable image"),
    (b"not an image", "no readable image"),
    (WHOLE[: len(WHOLE) // 2], "no readable image"),
    (claiming(5000, 5000), "over 16777216 pixels"),
    (claiming(12000, 12000), "over 16777216 pixels"),
    (claiming(40000, 40000), "over 16777216 pixels"),
    (png(Image.fromarray(np.zeros((4, 4), dtype=np.uint16))), "8 bits a channel"),
]


@pytest.mark.parametrize(("data", "part"), BAD)
def test_bad_image_gives_one_line(data: bytes, part: str) -> None:
    with pytest.raises(TaskSetError, match=part) as caught:
        decode_image(data, 28, "folder/x.png")
    assert str(caught.value).startswith("folder/x.png: ")
    assert "\n" not in str(caught.value)


def test_one_bit_images_are_resized_with_antialiasing() -> None:
    pixels = decode_image(png(CHECKERED), 10, "x")
    assert pixels.shape == (1, 10, 10)
    assert pixels.dtype == np.uint8
    # Halves of black and white average to grey; picking pixels would give 0 and 255 alone.
    assert np.abs(pixels.astype(int) - 127).max() < 10


def test_colour_comes_channels_first() -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    pixels = decode_image(png(image), 4, "x", "RGB")
    assert pixels.shape == (3, 4, 4)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]


def test_same_size_keeps_pixels() -> None:
    assert np.array_equal(
        decode_image(WHOLE, 50, "x")[0], np.asarray(Image.open(io.BytesIO(WHOLE)))
    )
