"""What ``validate`` says of task sets: leakage, duplicates, balance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.validation.data import data_lines, data_warnings


def task_set(seed: int = 0, n_tasks: int = 3, prefix: str = "") -> TaskSet:
    """Two-way tasks with two support and three query instances a class."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (10 * n_tasks, 1, 4, 4), dtype=np.uint8)
    tasks = []
    for k in range(n_tasks):
        rows = np.arange(10 * k, 10 * (k + 1))
        names = (f"{prefix}{2 * k}", f"{prefix}{2 * k + 1}")
        labels = np.repeat([0, 1], 2), np.repeat([0, 1], 3)
        tasks.append(Task(f"t{k}", rows[:4], labels[0], rows[4:], labels[1], names))
    return TaskSet(ImagePool(pixels, tuple(str(i) for i in range(len(pixels)))), tuple(tasks))


TRAIN, EVALUATION = task_set(prefix="train-"), task_set(1, prefix="eval-")


def changed(original: TaskSet, row: int, **changes: object) -> TaskSet:
    tasks = list(original.tasks)
    tasks[row] = replace(tasks[row], **changes)  # type: ignore[arg-type]
    return TaskSet(original.pool, tuple(tasks))


def test_clean_tasks_give_no_warning() -> None:
    assert data_warnings(TRAIN, EVALUATION) == []


def test_lines_say_what_there_is() -> None:
    lines = data_lines(TRAIN, EVALUATION)
    assert lines[0] == "training tasks: 3, 30 instances; 2-way with 4 support and 6 query"
    assert lines[2] == "classes: 6 in training, 6 in evaluation"
    assert "shape [1, 4, 4]" in lines[3] and "30 different ones" in lines[3]
    assert lines[4].startswith("labels: 2 support and 3 query a class in training")


def test_unequal_classes_and_sizes_are_told() -> None:
    labels = np.array([0, 0, 0, 1])
    uneven = changed(TRAIN, 1, support_y=labels)
    assert "1 to 3 support and 3 query a class in training" in data_lines(uneven, TRAIN)[4]
    smaller = changed(TRAIN, 2, query=TRAIN.tasks[2].query[:2], query_y=np.array([0, 1]))
    assert "2-way with 4 support and 2 query" in data_lines(smaller, TRAIN)[0]


def test_shared_inputs_are_leakage_whatever_their_ids_and_types() -> None:
    pixels = EVALUATION.pool.pixels.astype(np.float32) / 255
    pixels[[3, 7]] = TRAIN.pool.values(np.array([0, 1]))
    floats = TaskSet(replace(EVALUATION.pool, pixels=pixels), EVALUATION.tasks)
    (warning,) = data_warnings(TRAIN, floats)
    assert warning == "2 inputs are in training and in evaluation tasks"


def test_shared_classes_are_leakage() -> None:
    leaking = changed(EVALUATION, 0, class_names=("train-3", "eval-1"))
    (warning,) = data_warnings(TRAIN, leaking)
    assert warning == "1 classes are in training and in evaluation tasks: train-3"


@pytest.mark.parametrize(("which", "sets"), [("training", (0, 1)), ("evaluation", (1, 0))])
def test_an_input_in_support_and_query_is_told(which: str, sets: tuple[int, int]) -> None:
    pixels = TRAIN.pool.pixels.copy()
    pixels[15] = pixels[11]  # a query of t1 equals a support instance of it
    pixels[25] = pixels[5]  # equal inputs of different tasks are no duplicate within one
    doubled = TaskSet(replace(TRAIN.pool, pixels=pixels), TRAIN.tasks)
    pair = (doubled, EVALUATION)
    (warning,) = data_warnings(pair[sets[0]], pair[sets[1]])
    assert warning == f"1 {which} tasks have an input in both support and query: t1"
