"""What tasks consist of: neither names nor order nor numbers of labels count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from metaaudit.inputs.contents import duplicates, image_contents, task_content
from metaaudit.inputs.task_set import ImagePool, Ints, Task, TaskSet

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 1, 2, 3), dtype=np.uint8)
PIXELS[11] = PIXELS[2]  # the same picture under another name


def task_of(
    support: dict[int, int], query: dict[int, int], task_id: str = "a", names: tuple[str, ...] = ()
) -> Task:
    """A task of images and their labels."""

    def numbers(values: Iterable[int]) -> Ints:
        return np.array(list(values), dtype=np.int64)

    return Task(
        task_id,
        numbers(support),
        numbers(support.values()),
        numbers(query),
        numbers(query.values()),
        names,
    )


def tasks_of(*tasks: Task, pixels: np.ndarray = PIXELS, ids: str = "image") -> TaskSet:
    """The tasks, each under a name of its own."""
    pool = ImagePool(pixels, tuple(f"{ids}-{row}" for row in range(len(pixels))))
    return TaskSet(pool, tuple(replace(task, task_id=f"t{k}") for k, task in enumerate(tasks)))


def content(task: Task) -> str:
    task_set = tasks_of(task)
    return task_content(task, image_contents(task_set))


TASK = task_of({0: 0, 1: 0, 2: 1, 3: 1}, {4: 0, 5: 0, 6: 1, 7: 1})

SAME = {
    "order of instances": task_of({3: 1, 1: 0, 0: 0, 2: 1}, {7: 1, 5: 0, 4: 0, 6: 1}),
    "numbers of labels": task_of({0: 1, 1: 1, 2: 0, 3: 0}, {4: 1, 5: 1, 6: 0, 7: 0}),
    "labels with a gap": task_of({0: 4, 1: 4, 2: 2, 3: 2}, {4: 4, 5: 4, 6: 2, 7: 2}),
    "id": replace(TASK, task_id="b"),
    "class names": replace(TASK, class_names=("cat", "dog")),
    "a copy of an image": task_of({0: 0, 1: 0, 11: 1, 3: 1}, {4: 0, 5: 0, 6: 1, 7: 1}),
}

SAME_IMAGES = {
    "support and query swapped": task_of({4: 0, 5: 0, 6: 1, 7: 1}, {0: 0, 1: 0, 2: 1, 3: 1}),
    "one pair swapped": task_of({0: 0, 4: 0, 2: 1, 3: 1}, {1: 0, 5: 0, 6: 1, 7: 1}),
    "one other label": task_of({0: 0, 1: 1, 2: 1, 3: 1}, {4: 0, 5: 0, 6: 1, 7: 1}),
    "query under other names": task_of({0: 0, 1: 0, 2: 1, 3: 1}, {4: 1, 5: 1, 6: 0, 7: 0}),
    "labels crossed": task_of({0: 0, 1: 1, 2: 0, 3: 1}, {4: 0, 5: 1, 6: 0, 7: 1}),
    "one label each": task_of({0: 0, 1: 1, 2: 2, 3: 3}, {4: 4, 5: 5, 6: 6, 7: 7}),
}

OTHER_IMAGES = {
    "another image": task_of({0: 0, 1: 0, 2: 1, 3: 1}, {4: 0, 5: 0, 6: 1, 8: 1}),
    "one image less": task_of({0: 0, 1: 0, 2: 1, 3: 1}, {4: 0, 5: 0, 6: 1}),
    "an image twice": task_of({0: 0, 1: 0, 2: 1, 3: 1}, {4: 0, 5: 0, 6: 1, 7: 1, 11: 1}),
}


@pytest.mark.parametrize("other", SAME.values(), ids=SAME)
def test_what_does_not_count(other: Task) -> None:
    assert content(other) == content(TASK)
    task_set = tasks_of(TASK, other)
    assert duplicates(task_set, image_contents(task_set)) == [("t1",), ("t0",)]


@pytest.mark.parametrize("other", SAME_IMAGES.values(), ids=SAME_IMAGES)
def test_the_same_images_labelled_in_another_way(other: Task) -> None:
    assert content(other) != content(TASK)
    task_set = tasks_of(TASK, other)
    assert duplicates(task_set, image_contents(task_set)) == [("t1",), ("t0",)]


@pytest.mark.parametrize("other", OTHER_IMAGES.values(), ids=OTHER_IMAGES)
def test_other_images_are_another_task(other: Task) -> None:
    assert content(other) != content(TASK)
    task_set = tasks_of(TASK, other)
    assert duplicates(task_set, image_contents(task_set)) == [(), ()]


def test_all_the_other_tasks_are_told_in_their_order() -> None:
    task_set = tasks_of(TASK, OTHER_IMAGES["another image"], *SAME.values())
    found = duplicates(task_set, image_contents(task_set))
    assert found[0] == tuple(f"t{k}" for k in range(2, 8))
    assert found[1] == ()
    assert found[4] == ("t0", "t2", "t3", "t5", "t6", "t7")


def test_ids_and_places_of_images_do_not_count() -> None:
    before, after = tasks_of(TASK), tasks_of(TASK, ids="other")
    assert image_contents(before) == image_contents(after)
    moved = Task("a", 11 - TASK.support, TASK.support_y, 11 - TASK.query, TASK.query_y)
    backwards = tasks_of(moved, pixels=PIXELS[::-1])
    found = task_content(moved, image_contents(backwards))
    assert found == task_content(TASK, image_contents(before))


def test_only_images_of_tasks_have_a_content() -> None:
    found = image_contents(tasks_of(TASK))
    assert list(found) == list(range(8))
    assert len(set(found.values())) == 8
    assert all(len(value) == len(hashlib.sha256().hexdigest()) for value in found.values())


def test_equal_pixels_are_equal_images() -> None:
    found = image_contents(tasks_of(task_of({2: 0, 11: 0}, {3: 0})))
    assert found[2] == found[11] != found[3]


@pytest.mark.parametrize(
    "pixels", [PIXELS.reshape(12, 1, 3, 2), PIXELS.astype(np.float32), PIXELS.view(np.int8)]
)
def test_shape_and_type_count(pixels: np.ndarray) -> None:
    before, after = image_contents(tasks_of(TASK)), image_contents(tasks_of(TASK, pixels=pixels))
    assert not set(before.values()) & set(after.values())
