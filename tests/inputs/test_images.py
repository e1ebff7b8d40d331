"""Decoding of image files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from metaaudit.config.tasks import Colour
from metaaudit.errors import TaskSetError
from metaaudit.inputs.images import decode_image, resized


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
    pixels = decode_image(png(image), 4, "x", "rgb")
    assert pixels.shape == (3, 4, 4)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("size", [50, None])
def test_same_size_keeps_pixels(size: int | None) -> None:
    assert np.array_equal(
        decode_image(WHOLE, size, "x")[0], np.asarray(Image.open(io.BytesIO(WHOLE)))
    )


def test_images_keep_their_size_where_none_is_asked() -> None:
    wide = png(Image.new("L", (9, 4)))
    assert decode_image(wide, None, "x").shape == (1, 4, 9)
    assert decode_image(wide, None, "x", "rgb").shape == (3, 4, 9)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_all_modes_have_the_channels_that_are_asked(mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    stream = io.BytesIO()
    kind = "JPEG" if mode == "CMYK" else "PNG"
    # A palette with transparency is one that Pillow warns of.
    options = {"transparency": bytes(range(256))} if mode == "P" else {}
    image.convert(mode).save(stream, kind, **options)
    assert decode_image(stream.getvalue(), 4, "x", "grey").shape == (1, 4, 4)
    assert decode_image(stream.getvalue(), 4, "x", "rgb").shape == (3, 4, 4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("size", [None, 8, 5, 20])
def test_arrays_are_resized_as_files_are(channels: int, colour: Colour, size: int | None) -> None:
    shape = (3, channels, 8, 8)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = pixels.copy()
    found = resized(pixels, size, colour)
    for image, result in zip(pixels, found, strict=True):
        flat = image[0] if channels == 1 else image.transpose(1, 2, 0)
        assert np.array_equal(decode_image(png(Image.fromarray(flat)), size, "x", colour), result)
    assert found.shape == (3, 1 if colour == "grey" else 3, size or 8, size or 8)
    assert np.array_equal(pixels, before)


def test_arrays_that_are_as_asked_are_not_copied() -> None:
    pixels = np.zeros((2, 3, 4, 6), dtype=np.uint8)
    assert resized(pixels, None, "rgb") is pixels
    assert resized(pixels, None, "grey").shape == (2, 1, 4, 6)
