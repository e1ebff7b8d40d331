"""Images in arrays that stay in their file: which are read, how many at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from metaaudit.config.tasks import ImageConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs import stored_images
from metaaudit.inputs.images import MAX_PIXELS, resized
from metaaudit.inputs.stored_images import MAX_IMAGES, check_images, read_images


class Recorded:
    """Images in memory that note what is asked of them."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.asked: list[tuple[int, int]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    def block(self, start: int, stop: int) -> npt.NDArray[Any]:
        self.asked.append((start, stop))
        return self.pixels[start:stop]


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(200, 3, 4), (200, 3, 4, 1), (200, 3, 4, 3)])
@pytest.mark.parametrize("block", [1, 36 * 20, 1 << 24])
def test_any_rows_are_read_in_their_order(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], block: int
) -> None:
    monkeypatch.setattr(stored_images, "_BLOCK_BYTES", block)
    store, other = Recorded(noise(*shape)), Recorded(noise(*shape)[::-1])
    stores = {"a/b": (Path("f"), store), "c": (Path("g"), other)}
    rows = np.random.default_rng(1).permutation(200)[:60]
    ids = [f"{'c' if row % 3 else 'a/b'}/{row}" for row in rows]
    expected = np.stack([(other if row % 3 else store).pixels[row] for row in rows])
    expected = expected.reshape(60, 3, 4, -1).transpose(0, 3, 1, 2)
    for image in (
        ImageConfig(colour="rgb"),
        ImageConfig(colour="grey"),
        ImageConfig(size=2),
    ):
        found = read_images(stores, ids, image)
        assert np.array_equal(found, resized(expected, image.size, image.colour))
    most = max(stop - start for start, stop in store.asked)
    assert most <= max(1, block // 12)


def test_large_gaps_are_not_read() -> None:
    store = Recorded(noise(1000, 2, 2))
    ids = [f"a/{row}" for row in (999, 5, 7, 500, 0)]
    read_images({"a": (Path("f"), store)}, ids, ImageConfig())
    assert store.asked == [(0, 8), (500, 501), (999, 1000)]


def test_sizes_must_be_one_unless_one_is_asked_for() -> None:
    stores: Any = {
        name: (Path(name), Recorded(noise(3, 2, side))) for name, side in (("a", 4), ("b", 5))
    }
    read_images(stores, ["a/0", "a/1"], ImageConfig())
    with pytest.raises(TaskSetError, match="b: holds images of 5x2, and a of 4x2; expected one s"):
        read_images(stores, ["a/0", "b/1"], ImageConfig())
    assert read_images(stores, ["a/0", "b/1"], ImageConfig(size=3)).shape == (2, 3, 3, 3)


@pytest.mark.parametrize(
    ("shape", "dtype", "part"),
    [
        ((MAX_IMAGES + 1, 2, 2), "u1", "has the shape"),
        ((1, MAX_PIXELS, 2), "u1", "has the shape"),
        ((0, 2, 2), "u1", "has the shape"),
        ((2, 2), "u1", r"is uint8 \[2, 2\]; expected uint8 \[images, height, width\]"),
        ((2, 2, 2, 2), "u1", r"is uint8 \[2, 2, 2, 2\]"),
        ((2, 2, 2), "i1", "is int8"),
        ((2, 2, 2), "f4", "is float32"),
        ((2, 2, 2), "O", "is object"),
    ],
)
def test_what_is_no_array_of_images(shape: tuple[int, ...], dtype: str, part: str) -> None:
    check_images("f", (2, 2, 2), np.dtype("u1"))
    with pytest.raises(TaskSetError, match=f"^f: {part}"):
        check_images("f", shape, np.dtype(dtype))
