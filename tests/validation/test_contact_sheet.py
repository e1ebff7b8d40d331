"""The picture of a few tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaaudit.errors import RunError, TaskSetError
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.validation.contact_sheet import CELL, CLASSES, INSTANCES, contact_sheet
from tests.small import digits


def constant_images(values: list[int], channels: int = 1) -> TaskSet:
    """A two-way task whose images have one value each: support 0, 1 and query 2, 3."""
    pixels = np.stack([np.full((channels, 8, 8), v, dtype=np.uint8) for v in values])
    rows, labels = np.arange(4), np.array([0, 1])
    task = Task("a task", rows[:2], labels, rows[2:], labels, ("zero", "one"))
    return TaskSet(ImagePool(pixels, tuple("abcd")), (task,))


def drawn(tmp_path: Path, train: TaskSet, evaluation: TaskSet | None = None) -> np.ndarray:
    path = tmp_path / "sheet.png"
    contact_sheet(path, train, train if evaluation is None else evaluation)
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_there_from_black_to_white(tmp_path: Path, channels: int) -> None:
    sheet = drawn(tmp_path, constant_images([10, 60, 110, 210], channels))
    cells = [int((sheet[..., 0] == level).sum()) for level in (0, 64, 128, 255)]
    # Twice, as training and as evaluation task; a few pixels of the text may have these values too.
    assert all(0 <= count - 2 * CELL**2 < 50 for count in cells[:3])
    assert cells[3] > 2 * CELL**2  # the paper is white too


def test_polarity_is_that_of_the_inputs(tmp_path: Path) -> None:
    plain = constant_images([0, 200, 200, 200])
    inverted = TaskSet(ImagePool(plain.pool.pixels, plain.pool.ids, invert=True), plain.tasks)
    black = (drawn(tmp_path, plain)[..., 0] == 0).sum()
    assert abs((drawn(tmp_path, inverted)[..., 0] == 0).sum() - 3 * black) < 50


def test_the_size_is_bounded(tmp_path: Path) -> None:
    train, evaluation = digits(30, 30, 3, 9, 9)
    sheet = drawn(tmp_path, train, evaluation)
    assert sheet.shape[0] < 4 * (CLASSES * (CELL + 4) + 80)
    assert sheet.shape[1] < 2 * INSTANCES * (CELL + 4) + 250


def test_the_same_tasks_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    for path in (first, second):
        contact_sheet(path, *digits())
    assert first.read_bytes() == second.read_bytes()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ending in \.png"):
        contact_sheet(tmp_path / "sheet.jpg", *digits())
    vectors = ImagePool(np.zeros((4, 5), dtype=np.float32), tuple("abcd"))
    flat = TaskSet(vectors, constant_images([0, 1, 2, 3]).tasks)
    with pytest.raises(TaskSetError, match=r"inputs have shape \[5\]"):
        contact_sheet(tmp_path / "sheet.png", flat, flat)
    assert list(tmp_path.iterdir()) == []
