"""Images small enough to live inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

LARGEST_SIDE = 64


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """A PNG data URI of an image ``[height, width]`` or ``[height, width, 3]``.

    Larger images are reduced to ``LARGEST_SIDE``, so that they cannot blow up a report.
    """
    image = Image.fromarray(pixels)
    if max(image.size) > LARGEST_SIDE:
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
