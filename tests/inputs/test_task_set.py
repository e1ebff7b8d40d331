"""Values of pools with a mean and a deviation, and the hash of tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.config.tasks import ValuesConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.episodes import read_episodes, write_episodes
from metaaudit.inputs.task_set import SETS, ImagePool, Task, TaskSet
from metaaudit.inputs.values import image_pool

RNG = np.random.default_rng(0)
COLOURED = RNG.integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)
IDS = tuple(f"i{row}" for row in range(9))


def tasks(pool: ImagePool) -> TaskSet:
    rows = np.arange(9)
    first = Task("a", rows[:4], np.array([0, 1, 0, 1]), rows[4:6], np.array([0, 1]), ("x", "y"))
    second = Task("b", rows[6:8], np.array([0, 1]), rows[:1], np.array([1]))
    return TaskSet(pool, (first, second))


def whole(shape: tuple[int, ...], dtype: str) -> Any:
    return RNG.normal(size=shape).astype(dtype)


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.4], [0.2]), ([0.1, 0.2, 0.3], [1.0, 2.0, 4.0]), ([0.4], None), (None, [2])],
)
def test_mean_and_deviation_are_of_what_scale_and_invert_give(mean: Any, std: Any) -> None:
    config = ValuesConfig(scale=100.0, invert=True, mean=mean, std=std and [float(s) for s in std])
    rows = np.array([[0, 3], [4, 4]])
    found = image_pool(COLOURED, IDS, config).values(rows)
    expected = (255.0 - COLOURED[rows]) / 100
    for channel in range(3):
        shift = 0 if mean is None else mean[channel % len(mean)]
        divisor = 1 if std is None else std[channel % len(std)]
        wanted = (expected[:, :, channel] - shift) / divisor
        # Single precision.
        np.testing.assert_allclose(found[:, :, channel], wanted, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    assert found.shape == (2, 2, 3, 4, 4)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(9, 3, 4, 4), (9, 3), (9, 3, 2)])
def test_floats_are_shifted_too(dtype: str, shape: tuple[int, ...]) -> None:
    pixels = whole(shape, dtype)
    config = ValuesConfig(mean=[1.0, 2.0, 3.0], std=[0.5])
    found = image_pool(pixels, IDS, config).values(np.arange(9))
    assert found.dtype == ("float64" if dtype == "float64" else "float32")
    mean = np.array([1.0, 2.0, 3.0]).reshape(3, *(1 for _ in shape[2:]))
    np.testing.assert_allclose(found, (pixels.astype("float64") - mean) / 0.5, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "mean", "part"),
    [
        ((9, 3, 4, 4), [1.0, 2.0], r"tasks.image.mean: has 2 numbers for inputs of shape \[3, 4"),
        ((9, 1, 4, 4), [1.0, 2.0, 3.0], "has 3 numbers"),
        ((9, 4), [1.0, 2.0], "expected one number, or one a channel"),
    ],
)
def test_wrong_length_gives_one_line(shape: tuple[int, ...], mean: list[float], part: str) -> None:
    with pytest.raises(TaskSetError, match=part):
        image_pool(np.zeros(shape, dtype=np.uint8), IDS, ValuesConfig(mean=mean))
    with pytest.raises(TaskSetError, match=r"tasks.image.std"):
        image_pool(np.zeros(shape, dtype=np.uint8), IDS, ValuesConfig(std=mean))


@pytest.mark.parametrize("suffix", ["npz", "h5"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("image", [{"mean": [0.5]}, {"std": [0.1, 0.2, 0.3], "invert": True}])
def test_values_are_baked_into_written_tasks(
    tmp_path: Path, suffix: str, dtype: str, image: dict[str, Any]
) -> None:
    pixels = COLOURED if dtype == "uint8" else whole((9, 3, 4, 4), dtype)
    task_set = tasks(image_pool(pixels, IDS, ValuesConfig(**image)))
    path = tmp_path / f"tasks.{suffix}"
    write_episodes(path, task_set)
    found = read_episodes(path, ValuesConfig())
    for ours, theirs in zip(found.tasks, task_set.tasks, strict=True):
        for name in SETS:
            values = task_set.pool.values(theirs.rows(name))
            assert np.array_equal(found.pool.values(ours.rows(name)), values)
            assert found.pool.values(ours.rows(name)).dtype == values.dtype


def test_the_options_of_a_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.npz"
    write_episodes(path, tasks(ImagePool(COLOURED, IDS)))
    found = read_episodes(path, ValuesConfig(mean=[0.5], std=[2.0]))
    assert (found.pool.mean, found.pool.std) == ((0.5,), (2.0,))
    with pytest.raises(TaskSetError, match="has 2 numbers"):
        read_episodes(path, ValuesConfig(mean=[0.5, 0.5]))


BASE = tasks(ImagePool(COLOURED, IDS))


def with_pool(**changes: Any) -> TaskSet:
    return replace(BASE, pool=replace(BASE.pool, **changes))


def with_first(**changes: Any) -> TaskSet:
    return replace(BASE, tasks=(replace(BASE.tasks[0], **changes), BASE.tasks[1]))


def one_pixel() -> Any:
    pixels = COLOURED.copy()
    pixels[7, 0, 0, 0] ^= 1
    return pixels


FIRST = BASE.tasks[0]
CHANGES: dict[str, Callable[[], TaskSet]] = {
    "pixel": lambda: with_pool(pixels=one_pixel()),
    "id": lambda: with_pool(ids=("other", *IDS[1:])),
    "type": lambda: with_pool(pixels=COLOURED.astype(np.float32)),
    "shape": lambda: with_pool(pixels=COLOURED.reshape(9, 3, 2, 8)),
    "scale": lambda: with_pool(scale=1.0),
    "invert": lambda: with_pool(invert=True),
    "mean": lambda: with_pool(mean=(0.5,)),
    "std": lambda: with_pool(std=(0.5,)),
    "order of tasks": lambda: BASE.select([1, 0]),
    "number of tasks": lambda: BASE.select([0]),
    "task id": lambda: with_first(task_id="c"),
    "class names": lambda: with_first(class_names=("x", "z")),
    "labels": lambda: with_first(support_y=FIRST.support_y[::-1]),
    "query labels": lambda: with_first(query_y=FIRST.query_y[::-1]),
    "order of images": lambda: with_first(support=FIRST.support[::-1]),
    "another image": lambda: with_first(query=np.array([4, 7])),
    "sets": lambda: with_first(
        support=FIRST.query, support_y=FIRST.query_y, query=FIRST.support, query_y=FIRST.support_y
    ),
}


def test_everything_that_a_score_depends_on_is_hashed() -> None:
    hashes = {name: change().content_hash for name, change in CHANGES.items()}
    assert len({BASE.content_hash, *hashes.values()}) == len(CHANGES) + 1


def test_what_no_task_uses_is_not_hashed() -> None:
    order = [8, 3, 1, 0, 2, 4, 5, 6, 7]
    place = np.argsort(order)
    moved = [
        replace(task, support=place[task.support], query=place[task.query]) for task in BASE.tasks
    ]
    pool = ImagePool(COLOURED[order], tuple(IDS[row] for row in order))
    assert TaskSet(pool, tuple(moved)).content_hash == BASE.content_hash
    assert with_pool(ids=(*IDS[:8], "unused")).content_hash == BASE.content_hash
