"""Cross-fitting against a plain loop, and confident learning on worked cases."""

import numpy as np
import pytest
import torch

from metaaudit.bilevel import Batching, Objective, over_tasks
from metaaudit.config.mislabel import MislabelConfig
from metaaudit.config.model import MlpConfig
from metaaudit.demo.digits import digit_tasks
from metaaudit.inputs.task_set import Task, TaskSet
from metaaudit.labelnoise import assign_folds, cross_fit, label_noise
from metaaudit.labelnoise.confident import confidently_other
from metaaudit.learners import MAML
from metaaudit.models import build_model


@pytest.fixture(scope="module")
def case():
    task_set, _ = digit_tasks(n_train=3, n_eval=1, ways=3, shots=4, queries=3, seed=0)
    config = MlpConfig(name="mlp", hidden=[8], ways=3)
    model = build_model(config, input_shape=(1, 8, 8), ways=3)
    model = model.to(torch.device("cpu"), torch.float64)
    return Objective(model, MAML(0.1, 2)), model.initial(), task_set


def batching(size=2):
    return Batching(size, torch.device("cpu"), torch.float64)


def by_hand(objective, params, task_set, config):
    """Every fold fitted on its own, on a support that does not hold the fold."""
    results = []
    for task in task_set.tasks:
        rows = np.concatenate([task.support, task.query])
        labels = np.concatenate([task.support_y, task.query_y])
        result = np.empty((len(rows), 3))
        folds = assign_folds(task, config.folds, (config.seed, 0))
        for fold in np.unique(folds):
            kept, held = folds != fold, folds == fold
            cut = Task("cut", rows[kept], labels[kept], rows[held], labels[held])
            (batch,) = batching(1).batches(TaskSet(task_set.pool, (cut,)))

            def predict(params, w, v, data):
                return objective.forward(objective.adapt(params, w, data), data.query_x)

            logits = over_tasks(predict, params, batch.data)[0]
            result[held] = torch.log_softmax(logits, -1).numpy()
        results.append(result)
    return np.concatenate(results)


def test_weights_of_zero_hold_a_fold_out(case):
    config = MislabelConfig(folds=5, seed=1)
    found = cross_fit(*case, batching(), config)
    np.testing.assert_allclose(found, by_hand(*case, config), rtol=1e-9, atol=1e-12)


def test_a_label_never_reaches_its_own_prediction(case):
    objective, params, task_set = case
    task = task_set.tasks[0]
    before = cross_fit(objective, params, TaskSet(task_set.pool, (task,)), batching(), FOLDS)
    labels = task.query_y.copy()
    labels[2] = (labels[2] + 1) % 3
    changed = Task(task.task_id, task.support, task.support_y, task.query, labels)
    # The same folds are used although stratification would now cut others.
    folds = assign_folds(task, FOLDS.folds, (FOLDS.seed, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaaudit.labelnoise.cross_fitting.assign_folds", lambda *_: folds)
        after = cross_fit(objective, params, TaskSet(task_set.pool, (changed,)), batching(), FOLDS)
    place = len(task.support) + 2
    same_fold = folds == folds[place]
    np.testing.assert_allclose(after[same_fold], before[same_fold], rtol=1e-10)
    assert np.abs(after[~same_fold] - before[~same_fold]).max() > 1e-4


FOLDS = MislabelConfig(folds=5)


def test_results_do_not_depend_on_batch_or_order(case):
    objective, params, task_set = case
    reference = cross_fit(objective, params, task_set, batching(3), FOLDS)
    np.testing.assert_allclose(
        cross_fit(objective, params, task_set, batching(1), FOLDS), reference, rtol=1e-10
    )
    backwards = cross_fit(objective, params, task_set.select([2, 1, 0]), batching(), FOLDS)
    parts = np.split(backwards, 3)
    np.testing.assert_allclose(np.concatenate(parts[::-1]), reference, rtol=1e-10)


def test_repeats_average_probabilities(case):
    objective, params, task_set = case
    both = cross_fit(objective, params, task_set, batching(), MislabelConfig(folds=5, repeats=2))
    np.testing.assert_allclose(np.exp(both).sum(axis=1), 1, rtol=1e-12)
    one = cross_fit(objective, params, task_set, batching(), FOLDS)
    assert np.abs(both - one).max() > 1e-6


def test_folds_are_stratified_and_stable(case):
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


def test_an_image_in_both_sets_is_in_one_fold(case):
    task = case[2].tasks[0]
    query = task.query.copy()
    query[0] = task.support[5]
    query[1] = task.support[6]
    shared = Task("shared", task.support, task.support_y, query, task.query_y)
    for seed in range(5):
        folds = assign_folds(shared, 6, (seed, 0))
        n = len(task.support)
        assert folds[n] == folds[5] and folds[n + 1] == folds[6]


def test_a_fit_that_diverges_stays_in_its_fold(case, monkeypatch):
    objective, params, task_set = case
    task_set = task_set.select([0])
    folds = assign_folds(task_set.tasks[0], FOLDS.folds, (FOLDS.seed, 0))
    clean = cross_fit(objective, params, task_set, batching(), FOLDS)

    class Diverging:
        def adapt(self, forward, loss, params, support):
            adapted = objective.learner.adapt(forward, loss, params, support)
            held_out = int(np.flatnonzero(folds == 2)[0])
            factor = torch.where(support.weights[held_out] == 0, torch.inf, 1.0)
            return {name: p * factor for name, p in adapted.items()}

    broken = Objective(objective.forward, Diverging())
    found = cross_fit(broken, params, task_set, batching(), FOLDS)
    np.testing.assert_allclose(found[folds != 2], clean[folds != 2], rtol=1e-12)
    assert not np.isfinite(found[folds == 2]).any()


def test_outputs_that_a_task_lacks_do_not_count(case):
    task_set = case[2].select([0])
    three = np.log(np.random.default_rng(0).dirichlet([1, 1, 1], task_set.n_instances))
    five = np.hstack([three + np.log(0.5), np.full((len(three), 2), np.log(0.25))])
    narrow, wide = label_noise(three, task_set), label_noise(five, task_set)
    np.testing.assert_allclose(wide.score, narrow.score, rtol=1e-12)
    assert np.array_equal(wide.mislabeled, narrow.mislabeled)


def test_a_flagged_label_has_another_suggestion():
    # 0 is confident (0.40 >= 0.35) but less likely than the given label: no reason to doubt it.
    probabilities = np.array([[0.35, 0.65], [0.40, 0.60], [0.1, 0.9]])
    labels = np.array([0, 1, 1])
    assert confidently_other(probabilities, labels).tolist() == [False, False, False]


def test_confident_learning_on_a_worked_case():
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],  # 0: confident, right
            [0.7, 0.3, 0.0],
            [0.1, 0.9, 0.0],  # labelled 0, confidently 1
            [0.2, 0.8, 0.0],  # 1
            [0.3, 0.7, 0.0],
            [0.5, 0.5, 0.0],  # 1: not confident of either
        ]
    )
    labels = np.array([0, 0, 0, 1, 1, 1])
    # Thresholds: mean p(0) of those labelled 0 is 0.567, mean p(1) of those labelled 1 is 0.667.
    assert confidently_other(probabilities, labels).tolist() == [False, False, True] + [False] * 3


def test_label_noise_reports_share_suggestion_and_score(case):
    task_set = case[2].select([0])
    task = task_set.tasks[0]
    labels = np.concatenate([task.support_y, task.query_y])
    probabilities = np.full((len(labels), 3), 0.05)
    probabilities[np.arange(len(labels)), labels] = 0.9
    probabilities[4] = [0.02, 0.02, 0.02]
    probabilities[4, (labels[4] + 1) % 3] = 0.96
    found = label_noise(np.log(probabilities), task_set)
    assert found.label_noise == pytest.approx([1 / len(labels)])
    assert np.flatnonzero(found.mislabeled).tolist() == [4]
    assert found.suggested[4] == (labels[4] + 1) % 3
    assert found.score[4] == pytest.approx(0.98) and found.score[0] == pytest.approx(0.1)
    assert found.loss[0] == pytest.approx(-np.log(0.9))
