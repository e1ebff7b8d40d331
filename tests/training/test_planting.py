"""Planted errors: as many as asked for, where they are said to be, and nothing else."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from metaaudit.inputs.task_set import SETS, TaskSet
from metaaudit.training import Planted, plant
from metaaudit.training.planting import COLUMNS
from tests.small import digits

WAYS = 5
SIZE = WAYS * (4 + 4)
HOW: dict[str, Any] = {"flip_tasks": 5, "flip_share": 0.1, "permute_tasks": 3, "seed": 0}


@pytest.fixture(scope="module")
def clean() -> TaskSet:
    return digits(12, 1, WAYS, 4, 4)[0]


@pytest.fixture(scope="module")
def planted(clean: TaskSet) -> Planted:
    return plant(clean, **HOW)


def labels(task_set: TaskSet, row: int) -> np.ndarray:
    task = task_set.tasks[row]
    return np.concatenate([task.support_y, task.query_y])


def test_counts(planted: Planted, clean: TaskSet) -> None:
    assert len(planted.flipped) == 5
    assert len(planted.permuted) == 3
    assert len({*planted.flipped, *planted.permuted}) == 8
    wrong = planted.wrong.reshape(len(clean), SIZE)
    for row in range(len(clean)):
        expected = 4 if row in planted.flipped else SIZE // 2 if row in planted.permuted else 0
        assert wrong[row].sum() == expected, row


def test_wrong_marks_exactly_the_changed_labels(planted: Planted, clean: TaskSet) -> None:
    assert planted.clean is clean
    for i, (row, name, index) in enumerate(clean.instances()):
        before = clean.tasks[row].labels(name)[index]
        after = planted.task_set.tasks[row].labels(name)[index]
        assert (before != after) == planted.wrong[i]
        assert 0 <= after < WAYS


def test_nothing_but_labels_changes(planted: Planted, clean: TaskSet) -> None:
    assert planted.task_set.pool is clean.pool
    for before, after in zip(clean.tasks, planted.task_set.tasks, strict=True):
        assert (after.task_id, after.class_names) == (before.task_id, before.class_names)
        for name in SETS:
            np.testing.assert_array_equal(after.rows(name), before.rows(name))


def test_flips_fall_in_both_sets_and_on_every_class(clean: TaskSet) -> None:
    flipped = plant(clean, flip_tasks=12, flip_share=0.3, permute_tasks=0, seed=0).task_set
    moves = np.array(
        [
            (flipped.tasks[row].labels(name)[index] - clean.tasks[row].labels(name)[index]) % WAYS
            for row, name, index in clean.instances()
        ]
    ).reshape(12, SIZE)
    assert set(moves.ravel()) == set(range(WAYS))
    assert moves[:, : SIZE // 2].any()
    assert moves[:, SIZE // 2 :].any()


def test_permuted_tasks_keep_their_support_and_no_query_label(
    planted: Planted, clean: TaskSet
) -> None:
    for row in planted.permuted:
        before, after = clean.tasks[row], planted.task_set.tasks[row]
        np.testing.assert_array_equal(after.support_y, before.support_y)
        assert (after.query_y != before.query_y).all()
        renamed = set(zip(before.query_y.tolist(), after.query_y.tolist(), strict=True))
        assert len(renamed) == len({new for _, new in renamed}) == WAYS


@pytest.mark.parametrize("ways", [2, 3])
def test_permuting_moves_every_class_of_small_tasks(ways: int) -> None:
    tasks = digits(10, 1, ways)[0]
    found = plant(tasks, flip_tasks=0, flip_share=0.5, permute_tasks=10, seed=3)
    for row in range(10):
        assert (found.task_set.tasks[row].query_y != tasks.tasks[row].query_y).all()


def test_at_least_one_flip_a_task(clean: TaskSet) -> None:
    found = plant(clean, flip_tasks=12, flip_share=1e-6, permute_tasks=0, seed=0)
    assert found.wrong.reshape(12, SIZE).sum(axis=1).tolist() == [1] * 12


def test_same_seed_plants_the_same(planted: Planted, clean: TaskSet) -> None:
    again, other = plant(clean, **HOW), plant(clean, **HOW | {"seed": 1})
    assert again.task_set.content_hash == planted.task_set.content_hash
    assert (again.flipped, again.permuted) == (planted.flipped, planted.permuted)
    assert other.task_set.content_hash != planted.task_set.content_hash


def test_nothing_to_plant(clean: TaskSet) -> None:
    found = plant(clean, flip_tasks=0, flip_share=0.1, permute_tasks=0, seed=0)
    assert found.task_set.content_hash == clean.content_hash
    assert not found.wrong.any()
    assert found.csv() == ",".join(COLUMNS) + "\n"


def test_csv_lists_every_wrong_label(planted: Planted, clean: TaskSet) -> None:
    lines = list(csv.DictReader(io.StringIO(planted.csv())))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == planted.wrong.sum() == 5 * 4 + 3 * SIZE // 2
    position = {task_id: row for row, task_id in enumerate(clean.task_ids)}
    for line in lines:
        row, name, index = position[line["task_id"]], line["set"], int(line["index"])
        assert int(line["true_label"]) == clean.tasks[row].labels(name)[index]  # type: ignore[arg-type]
        assert int(line["planted_label"]) == planted.task_set.tasks[row].labels(name)[index]  # type: ignore[arg-type]
        assert line["kind"] == ("permuted" if row in planted.permuted else "flipped")


def test_more_tasks_than_there_are(clean: TaskSet) -> None:
    with pytest.raises(ValueError, match=r"8 \+ 5 tasks to plant in, 12 given"):
        plant(clean, flip_tasks=8, flip_share=0.1, permute_tasks=5, seed=0)
