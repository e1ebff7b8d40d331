"""Subsets of tasks, and tasks without some instances."""

from __future__ import annotations

import numpy as np
import pytest

from metaaudit.fidelity.subsets import (
    Place,
    removable,
    same_steps_epochs,
    subsets,
    without_instances,
    without_tasks,
)
from tests.small import SHOTS, WAYS, digits


def test_subsets_are_those_that_kept_results_are_of() -> None:
    assert subsets(6, 0.5, 3, 1000) == [
        np.sort(np.random.default_rng([1000, s]).permutation(6)[:3]).tolist() for s in range(3)
    ]
    assert subsets(10, 0.3, 2, 7) == FIXED


FIXED = [[0, 7, 8], [0, 8, 9]]


def test_more_subsets_begin_with_the_same() -> None:
    few, many = subsets(20, 0.5, 3, 0), subsets(20, 0.5, 6, 0)
    assert many[:3] == few
    assert len({tuple(rows) for rows in many}) == 6
    assert all(len(rows) == 10 == len(set(rows)) and rows == sorted(rows) for rows in many)


@pytest.mark.parametrize("batch", [1, 3, 10, 64])
@pytest.mark.parametrize("n_sub", [1, 7, 10, 19])
def test_epochs_for_as_many_steps(n_sub: int, batch: int) -> None:
    def steps(epochs: int, n: int) -> int:
        return epochs * len(range(0, n, batch))

    epochs = same_steps_epochs(8, 20, n_sub, batch)
    assert steps(epochs - 1, n_sub) < steps(8, 20) <= steps(epochs, n_sub)


def test_tasks_are_removed() -> None:
    train = digits()[0]
    rest = without_tasks(train, [1, 5, 5])
    assert rest.task_ids == [t for i, t in enumerate(train.task_ids) if i not in (1, 5)]
    assert rest.pool is train.pool


def test_instances_are_removed_with_their_labels() -> None:
    train = digits()[0]
    rest = without_instances(train, [(2, "support", 0), (2, "query", 4), (2, "query", 1)])
    before, after = train.tasks[2], rest.tasks[2]
    assert after.support.tolist() == before.support[1:].tolist()
    assert after.support_y.tolist() == before.support_y[1:].tolist()
    kept = [0, 2, 3, 5]
    assert after.query.tolist() == before.query[kept].tolist()
    assert after.query_y.tolist() == before.query_y[kept].tolist()
    assert rest.pool is train.pool
    others = [i for i in range(len(train)) if i != 2]
    assert all(rest.tasks[i] is train.tasks[i] for i in others)
    assert before.shape == train.tasks[2].shape == (WAYS * SHOTS, 6)


def test_the_last_of_a_class_in_a_support_and_the_last_query_stay() -> None:
    train = digits()[0]
    labels = train.tasks[0].support_y
    support: list[Place] = [(0, "support", int(i)) for i in np.flatnonzero(labels == 1)]
    queries: list[Place] = [(0, "query", i) for i in range(6)]
    asked: list[Place] = [support[1], support[1], support[0], *queries, (1, "support", 0)]
    found = removable(train, asked)
    assert found == [support[1], *queries[:5], (1, "support", 0)]
    rest = without_instances(train, asked)
    assert rest.tasks[0].shape == (WAYS * SHOTS - 1, 1)
    assert set(rest.tasks[0].support_y) == set(range(WAYS))
    assert rest.tasks[0].query.tolist() == train.tasks[0].query[[5]].tolist()


def test_a_class_may_leave_the_queries() -> None:
    train = digits()[0]
    places: list[Place] = [
        (0, "query", int(i)) for i in np.flatnonzero(train.tasks[0].query_y == 2)
    ]
    assert removable(train, places) == places
