"""Cross-fitting against a plain loop, and the choice of the number of steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metaaudit.bilevel import Objective, over_tasks
from metaaudit.config.mislabel import MislabelConfig
from metaaudit.inputs.task_set import Task, TaskSet
from metaaudit.labelnoise import assign_folds, best_steps, cross_fit, mean_probabilities
from metaaudit.labelnoise import cross_fitting as module
from metaaudit.models import Params
from tests.labelnoise.made_tasks import (
    WAYS,
    Case,
    batching,
    given_labels,
    learner_case,
    made_tasks,
    sure_of,
)

FOLDS = MislabelConfig(folds=5)


@pytest.fixture(scope="module")
def case() -> Case:
    return learner_case()


def by_hand(
    objective: Objective, params: Params, task_set: TaskSet, config: MislabelConfig
) -> np.ndarray:
    """Every fold fitted on its own, on a support that does not hold the fold."""
    results = []
    for task in task_set.tasks:
        rows = np.concatenate([task.support, task.query])
        labels = np.concatenate([task.support_y, task.query_y])
        result = np.empty((len(rows), WAYS))
        folds = assign_folds(task, config.folds, (config.seed, 0))
        for fold in np.unique(folds):
            kept, held = folds != fold, folds == fold
            cut = Task("cut", rows[kept], labels[kept], rows[held], labels[held])
            (batch,) = batching(1).batches(TaskSet(task_set.pool, (cut,)))

            def predict(params, w, v, data):  # type: ignore[no-untyped-def]
                return objective.forward(objective.adapt(params, w, data), data.query_x)

            logits = over_tasks(predict, params, batch.data)[0]
            result[held] = torch.log_softmax(logits, -1).numpy()
        results.append(result)
    return np.concatenate(results)


def test_weights_of_zero_hold_a_fold_out(case: Case) -> None:
    config = MislabelConfig(folds=5, seed=1)
    found = cross_fit(*case, batching(), config)
    np.testing.assert_allclose(found, by_hand(*case, config), rtol=1e-9, atol=1e-12)


def test_tasks_of_several_sizes_keep_their_places() -> None:
    case = learner_case(sizes=(0, 2, 0, 1))
    found = cross_fit(*case, batching(3), FOLDS)
    np.testing.assert_allclose(found, by_hand(*case, FOLDS), rtol=1e-9, atol=1e-12)


def test_a_label_never_reaches_its_own_prediction(case: Case) -> None:
    objective, params, task_set = case
    task = task_set.tasks[0]
    before = cross_fit(objective, params, TaskSet(task_set.pool, (task,)), batching(), FOLDS)
    labels = task.query_y.copy()
    labels[2] = (labels[2] + 1) % 3
    changed = Task(task.task_id, task.support, task.support_y, task.query, labels)
    # The same folds are used although stratification would now cut others.
    folds = assign_folds(task, FOLDS.folds, (FOLDS.seed, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "assign_folds", lambda *_: folds)
        after = cross_fit(objective, params, TaskSet(task_set.pool, (changed,)), batching(), FOLDS)
    place = len(task.support) + 2
    same_fold = folds == folds[place]
    np.testing.assert_allclose(after[same_fold], before[same_fold], rtol=1e-10)
    assert np.abs(after[~same_fold] - before[~same_fold]).max() > 1e-4


def test_results_do_not_depend_on_batch_or_order(case: Case) -> None:
    objective, params, task_set = case
    # 15 tasks at once are 3 of 5 folds.
    reference = cross_fit(objective, params, task_set, batching(15), FOLDS)
    np.testing.assert_allclose(
        cross_fit(objective, params, task_set, batching(1), FOLDS), reference, rtol=1e-10
    )
    backwards = cross_fit(objective, params, task_set.select([2, 1, 0]), batching(), FOLDS)
    parts = np.split(backwards, 3)
    np.testing.assert_allclose(np.concatenate(parts[::-1]), reference, rtol=1e-10)


def test_repeats_average_probabilities(case: Case) -> None:
    both = cross_fit(*case, batching(), MislabelConfig(folds=5, repeats=2))
    np.testing.assert_allclose(np.exp(both).sum(axis=1), 1, rtol=1e-12)
    first = cross_fit(*case, batching(), FOLDS)
    # Twice the first one less the first is the second, which has a partition of its own.
    second = 2 * np.exp(both) - np.exp(first)
    np.testing.assert_allclose(second.sum(axis=1), 1, rtol=1e-12)
    assert (second > 0).all()
    assert np.abs(second - np.exp(first)).max() > 1e-6


def test_the_mean_is_one_of_probabilities() -> None:
    p = np.array([[[0.9, 0.1]], [[0.2, 0.8]]])
    # Logits may be shifted by anything.
    logits = [np.log(p[0]) + 100, np.log(p[1]) - 7]
    np.testing.assert_allclose(np.exp(mean_probabilities(logits)), [[0.55, 0.45]], rtol=1e-12)


def test_the_mean_of_very_small_probabilities_does_not_vanish() -> None:
    found = mean_probabilities([np.array([[0.0, -2000.0]]), np.array([[0.0, -3000.0]])])
    np.testing.assert_allclose(found, [[0, -2000 - np.log(2)]], rtol=1e-12)


def test_progress_counts_every_task_once(case: Case) -> None:
    told: list[int] = []
    cross_fit(*case, batching(), MislabelConfig(folds=5, repeats=2), told.append)
    assert sum(told) == len(case[2])


def test_folds_are_stratified_and_stable(case: Case) -> None:
    task = case[2].tasks[0]
    folds = assign_folds(task, 7, (0, 0))
    labels = np.concatenate([task.support_y, task.query_y])
    assert np.bincount(folds).tolist() == [3] * 7
    for label in range(3):
        assert np.bincount(folds[labels == label], minlength=7).max() <= 1
    assert np.array_equal(folds, assign_folds(task, 7, (0, 0)))
    assert not np.array_equal(folds, assign_folds(task, 7, (1, 0)))
    assert not np.array_equal(folds, assign_folds(task, 7, (0, 1)))
    assert assign_folds(task, 100, (0, 0)).max() == len(labels) - 1


def test_an_image_in_both_sets_is_in_one_fold(case: Case) -> None:
    task = case[2].tasks[0]
    query = task.query.copy()
    query[0] = task.support[5]
    query[1] = task.support[6]
    shared = Task("shared", task.support, task.support_y, query, task.query_y)
    for seed in range(5):
        folds = assign_folds(shared, 6, (seed, 0))
        n = len(task.support)
        assert folds[n] == folds[5]
        assert folds[n + 1] == folds[6]


def test_a_fit_that_diverges_stays_in_its_fold(case: Case) -> None:
    objective, params, task_set = case
    task_set = task_set.select([0])
    folds = assign_folds(task_set.tasks[0], FOLDS.folds, (FOLDS.seed, 0))
    clean = cross_fit(objective, params, task_set, batching(), FOLDS)

    class Diverging:
        def adapt(self, forward, loss, params, support):  # type: ignore[no-untyped-def]
            adapted = objective.learner.adapt(forward, loss, params, support)
            held_out = int(np.flatnonzero(folds == 2)[0])
            factor = torch.where(support.weights[held_out] == 0, torch.inf, 1.0)
            return {name: p * factor for name, p in adapted.items()}

    broken = Objective(objective.forward, Diverging())
    found = cross_fit(broken, params, task_set, batching(), FOLDS)
    np.testing.assert_allclose(found[folds != 2], clean[folds != 2], rtol=1e-12)
    assert not np.isfinite(found[folds == 2]).any()


@pytest.mark.parametrize(
    ("steps", "right", "best"),
    [
        (4, {1: 3, 2: 4, 4: 5, 8: 9, 16: 8}, 8),
        (4, {1: 3, 2: 9, 4: 5, 8: 9, 16: 9}, 2),
        (4, {1: 0, 2: 0, 4: 0, 8: 0, 16: 0}, 1),
        (1, {1: 2, 2: 3, 4: 4}, 4),
        (5, {1: 2, 2: 3, 5: 4, 10: 7, 20: 7}, 10),
    ],
)
def test_the_most_accurate_number_of_steps_and_the_fewer_on_ties(
    steps: int, right: dict[int, int], best: int
) -> None:
    task_set = made_tasks([([0, 1, 2], [0, 1, 2])] * 2)
    labels = given_labels(task_set)

    def tried(count: int, *_: object) -> np.ndarray:
        said = np.where(np.arange(len(labels)) < right.pop(count), labels, (labels + 1) % 3)
        return sure_of(said, 3, 0.8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "cross_fit", tried)
        found = best_steps(lambda count: count, steps, {}, task_set, batching(), FOLDS)  # type: ignore[arg-type, return-value]
    assert found == best
    assert not right, "all of them are tried, each once"


def test_the_number_of_steps_is_chosen_on_the_first_few_tasks() -> None:
    task_set = made_tasks([([0, 1], [0, 1])] * 45)
    seen: list[list[str]] = []

    def tried(_: object, __: object, some: TaskSet, *___: object) -> np.ndarray:
        seen.append(some.task_ids)
        return sure_of(given_labels(some), 2, 0.8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "cross_fit", tried)
        best_steps(lambda count: count, 1, {}, task_set, batching(), FOLDS)  # type: ignore[arg-type, return-value]
    assert {tuple(ids) for ids in seen} == {tuple(f"task-{k}" for k in range(40))}


def test_the_chosen_number_of_steps_is_the_best_of_a_real_learner() -> None:
    _, params, task_set = learner_case()

    def with_steps(count: int) -> Objective:
        return learner_case(count)[0]

    def accuracy(count: int) -> float:
        found = cross_fit(with_steps(count), params, task_set, batching(), FOLDS)
        return float((found.argmax(axis=1) == given_labels(task_set)).mean())

    found = best_steps(with_steps, 8, params, task_set, batching(), FOLDS)
    tried = {count: accuracy(count) for count in (1, 4, 8, 16, 32)}
    assert tried[1] < max(tried.values()), "the choice matters"
    assert found == min(count for count in tried if tried[count] == max(tried.values()))
