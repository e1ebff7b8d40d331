from __future__ import annotations

import numpy as np
import pytest

from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.runs.thumbnails import MAX_SIDE, thumbnails


def two_tasks(shape: tuple[int, ...] = (1, 8, 8)) -> TaskSet:
    """Task 1 holds images 2 and 3 of task 0 again, as its support set."""
    pixels = np.arange(6 * np.prod(shape), dtype=np.int64).reshape(6, *shape) % 251
    pool = ImagePool(pixels.astype(np.uint8), tuple(f"image-{k}" for k in range(6)))
    labels = np.array([0, 1])
    rows = (np.array([0, 1]), np.array([2, 3]), np.array([2, 3]), np.array([4, 5]))
    return TaskSet(
        pool,
        (
            Task("first", rows[0], labels, rows[1], labels),
            Task("second", rows[2], labels, rows[3], labels),
        ),
    )


def test_whole_tasks_come_with_all_their_instances() -> None:
    found = thumbnails(two_tasks(), [0, 0], [])
    assert found is not None
    assert found.places == [(0, "support", 0), (0, "support", 1), (0, "query", 0), (0, "query", 1)]
    assert found.pixels.shape == (4, 8, 8)


def test_an_instance_that_is_there_already_adds_no_picture() -> None:
    worst = [(1, "support", 0), (1, "query", 1), (1, "query", 1)]
    found = thumbnails(two_tasks(), [0], worst)
    assert found is not None
    assert found.places[4:] == [(1, "query", 1)]


@pytest.mark.parametrize(
    ("shape", "kept"),
    [((3, 100, 50), (MAX_SIDE, MAX_SIDE // 2, 3)), ((2, 8, 8), None), ((16,), None)],
)
def test_only_images_are_kept_and_small(shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
    found = thumbnails(two_tasks(shape), [0], [])
    assert (found.pixels.shape[1:] if found else None) == kept


def test_nothing_to_show_is_no_error() -> None:
    assert thumbnails(two_tasks(), [], []) is None
