"""Planted errors: as many as asked for, where they are said to be, and nothing else."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from metaaudit.inputs.task_set import SETS, ImagePool, SetName, Task, TaskSet
from metaaudit.training import Planted, flip_labels, plant
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
        assert line["kind"] == ("permuted" if row in planted.permuted else "corrupted")


def test_more_tasks_than_there_are(clean: TaskSet) -> None:
    with pytest.raises(ValueError, match=r"8 \+ 5 tasks to plant in, 12 given"):
        plant(clean, flip_tasks=8, flip_share=0.1, permute_tasks=5, seed=0)


@pytest.mark.parametrize("sets", [SETS, ("support",), ("query",)])
@pytest.mark.parametrize("confusable", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_a_share_of_all_labels_is_flipped(
    clean: TaskSet, sets: tuple[SetName, ...], confusable: bool, share: float
) -> None:
    found = flip_labels(clean, share, seed=0, sets=sets, confusable=confusable)
    candidates = np.array([name in sets for _, name, _ in clean.instances()])
    assert found.wrong.sum() == round(share * candidates.sum())
    assert not found.wrong[~candidates].any()
    changed = [
        found.task_set.tasks[row].labels(name)[index] != clean.tasks[row].labels(name)[index]
        for row, name, index in clean.instances()
    ]
    assert np.array_equal(found.wrong, changed)
    of_task = found.wrong.reshape(len(clean), SIZE).any(axis=1)
    assert found.flipped == tuple(np.flatnonzero(of_task))
    assert found.permuted == ()
    assert found.clean is clean
    assert found.task_set.pool is clean.pool
    for before, after in zip(clean.tasks, found.task_set.tasks, strict=True):
        assert (after.task_id, after.class_names) == (before.task_id, before.class_names)
        for name in SETS:
            np.testing.assert_array_equal(after.rows(name), before.rows(name))
            assert set(after.labels(name)) <= set(range(WAYS))


def test_flipped_labels_become_any_other_class(clean: TaskSet) -> None:
    found = flip_labels(clean, 1.0, seed=0)
    moves = [(labels(found.task_set, row) - labels(clean, row)) % WAYS for row in range(len(clean))]
    counts = np.bincount(np.concatenate(moves), minlength=WAYS)
    # 480 labels, of which each of the four other classes gets 120, give or take 10.
    assert counts[0] == 0
    assert counts[1:].min() > 80


def test_flipping_leaves_the_given_tasks_as_they_are(clean: TaskSet) -> None:
    before = [labels(clean, row) for row in range(len(clean))]
    flip_labels(clean, 0.5, seed=0)
    assert all(np.array_equal(labels(clean, row), before[row]) for row in range(len(clean)))


def test_flipping_is_decided_by_the_seed(clean: TaskSet) -> None:
    first, again, other = (flip_labels(clean, 0.2, seed=seed) for seed in (0, 0, 1))
    assert first.task_set.content_hash == again.task_set.content_hash
    assert first.task_set.content_hash != other.task_set.content_hash
    # The same labels are wrong in either way of choosing their new class.
    assert np.array_equal(first.wrong, flip_labels(clean, 0.2, seed=0, confusable=True).wrong)


def line_of_classes(places: list[float]) -> TaskSet:
    """A task of classes that lie at these places on a line, three instances each."""
    ways = len(places)
    values = np.concatenate([np.array(places) + shift for shift in (-0.1, 0.0, 0.1)])
    pool = ImagePool(values[:, None], tuple(f"image-{row}" for row in range(3 * ways)))
    classes = np.arange(ways)
    task = Task(
        "line", np.arange(2 * ways), np.tile(classes, 2), np.arange(2 * ways, 3 * ways), classes
    )
    return TaskSet(pool, (task,))


def test_confusable_labels_become_the_nearest_class() -> None:
    tasks = line_of_classes([0.0, 10.0, 3.0, 12.0, 4.0])
    found = flip_labels(tasks, 1.0, seed=0, confusable=True)
    nearest = {0: 2, 1: 3, 2: 4, 3: 1, 4: 2}
    assert labels(found.task_set, 0).tolist() == [nearest[c] for c in labels(tasks, 0).tolist()]


def test_the_nearest_class_is_that_of_the_clean_labels() -> None:
    """Labels that were flipped before do not move the mean image of a class."""
    tasks = line_of_classes([0.0, 10.0, 3.0])
    for seed in range(10):
        found = flip_labels(tasks, 0.7, seed=seed, confusable=True)
        for before, after, wrong in zip(
            labels(tasks, 0), labels(found.task_set, 0), found.wrong, strict=True
        ):
            assert after == ({0: 2, 1: 2, 2: 0}[int(before)] if wrong else before)


def test_two_classes_are_swapped() -> None:
    tasks = digits(4, 1, 2)[0]
    for confusable in (False, True):
        found = flip_labels(tasks, 1.0, seed=0, confusable=confusable)
        for row in range(4):
            assert np.array_equal(labels(found.task_set, row), 1 - labels(tasks, row))


def test_csv_of_flipped_labels(clean: TaskSet) -> None:
    found = flip_labels(clean, 0.05, seed=0, sets=("query",))
    lines = list(csv.DictReader(io.StringIO(found.csv())))
    assert len(lines) == found.wrong.sum() == 12
    assert {(line["kind"], line["set"]) for line in lines} == {("flipped", "query")}


def test_a_batch_gets_any_class_of_its_data_set() -> None:
    """Also one that none of its instances is of; its support stays empty."""
    nothing = np.empty(0, dtype=np.int64)
    names = tuple("abcdef")
    pool = ImagePool(np.zeros((60, 1), np.float32), tuple(map(str, range(60))))
    tasks = tuple(
        Task(f"b{k}", nothing, nothing, np.arange(6) + 6 * k, np.full(6, k % 2), names)
        for k in range(10)
    )
    found = flip_labels(TaskSet(pool, tasks), 0.5, seed=0)
    assert found.wrong.sum() == 30
    new = np.concatenate([task.query_y for task in found.task_set.tasks])[found.wrong]
    assert set(new.tolist()) == set(range(6))
    assert {task.shape for task in found.task_set.tasks} == {(0, 6)}
    whole = plant(TaskSet(pool, tasks), flip_tasks=4, flip_share=1.0, permute_tasks=0, seed=0)
    assert whole.wrong.sum() == 24
