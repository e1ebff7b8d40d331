"""The pictures of a page in one sheet, each of them once, small enough to live inside the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from metaaudit.runs.saved import ThumbnailKey

COLUMNS = 40
MAX_PICTURES = 4_000
MAX_BYTES = 1_600_000
HOPELESS = 6  # so many times smaller no PNG of real pictures becomes
_LADDER = ((64, "PNG"), (64, "JPEG"), (48, "JPEG"), (32, "JPEG"), (24, "JPEG"))
"""Largest side and format of the pictures; the first that keeps to ``MAX_BYTES`` is taken."""


@dataclass(frozen=True)
class Cell:
    """Where in the sheet a picture lies, from 0."""

    column: int
    row: int


@dataclass(frozen=True)
class Sheet:
    """All pictures of a page.

    Attributes:
        uri: The sheet as a data URI.
        columns: Number of columns.
        rows: Number of rows.
        width: Of a picture, in pixels.
        ratio: Width of a picture, divided by its height.
    """

    uri: str
    columns: int
    rows: int
    width: int
    ratio: float


class Pictures:
    """Gives out cells of the sheet; equal pictures share one.

    Args:
        thumbnails: Images ``[height, width]`` or ``[height, width, 3]``, all of one shape.
    """

    def __init__(self, thumbnails: Mapping[ThumbnailKey, npt.NDArray[np.uint8]]) -> None:
        self._thumbnails = thumbnails
        self._used: dict[bytes, int] = {}
        self._pixels: list[npt.NDArray[np.uint8]] = []

    def cell(self, key: ThumbnailKey) -> Cell | None:
        """The cell of a picture; none where there is no picture, or the sheet is full."""
        pixels = self._thumbnails.get(key)
        if pixels is None:
            return None
        number = self._used.get(content := pixels.tobytes())
        if number is None:
            if len(self._pixels) == MAX_PICTURES:
                return None
            number = self._used[content] = len(self._pixels)
            self._pixels.append(pixels)
        return Cell(number % COLUMNS, number // COLUMNS)

    def sheet(self) -> Sheet | None:
        """The sheet of all cells that were given out; none where none was."""
        if not self._pixels:
            return None
        rows = math.ceil(len(self._pixels) / COLUMNS)
        height, width = self._pixels[0].shape[:2]
        raw = sum(one.nbytes for one in self._pixels)
        for side, kind in _LADDER:
            if kind == "PNG" and raw > HOPELESS * MAX_BYTES:
                continue  # it would take long to find out
            encoded = _encoded(_joined(self._pixels, rows, side), kind)
            if len(encoded) <= MAX_BYTES:
                break
        uri = f"data:image/{kind.lower()};base64,{base64.b64encode(encoded).decode()}"
        return Sheet(uri, COLUMNS, rows, min(side, width), width / height)


def _joined(pixels: list[npt.NDArray[np.uint8]], rows: int, side: int) -> Image.Image:
    """All pictures side by side, none larger than ``side``."""
    images = [Image.fromarray(one) for one in pixels]
    for image in images:
        image.thumbnail((side, side))
    width, height = images[0].size
    sheet = Image.new(images[0].mode, (COLUMNS * width, rows * height))
    for number, image in enumerate(images):
        sheet.paste(image, (number % COLUMNS * width, number // COLUMNS * height))
    return sheet


def _encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    options: dict[str, Any] = {"quality": 82, "subsampling": 0} if kind == "JPEG" else {}
    image.save(out, format=kind, **options)
    return out.getvalue()
