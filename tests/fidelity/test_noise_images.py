"""Tasks of noise images: what becomes of them, and how their place is counted."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from metaaudit.config.evaluate import CandidateConfig, NoiseImagesConfig
from metaaudit.errors import ConfigError
from metaaudit.fidelity.experiments.noise_images import COLUMNS, Order, run, with_noise
from metaaudit.fidelity.retraining import Retrainer
from metaaudit.training import MetaTrainer, TrainingState
from tests.bilevel.small_networks import random_tasks
from tests.fidelity.ablation_cases import bench, trained
from tests.small import digits


def pixels(task_set, row):
    task = task_set.tasks[row]
    return task_set.pool.pixels[np.concatenate([task.support, task.query])]


def test_noise_takes_the_place_of_the_images_alone():
    task_set = digits(n_train=8)[0]
    noisy, rows = with_noise(task_set, 0.25, seed=0)
    assert len(rows) == 2
    for row, (task, other) in enumerate(zip(task_set.tasks, noisy.tasks, strict=True)):
        assert task.task_id == other.task_id
        assert np.array_equal(task.pooled_labels, other.pooled_labels)
        assert np.array_equal(pixels(task_set, row), pixels(noisy, row)) == (row not in rows)
    noise = np.concatenate([pixels(noisy, row) for row in rows]) / 255
    assert noise.mean() == pytest.approx(0.5, abs=0.03)
    assert noise.std() == pytest.approx(1 / 12**0.5, abs=0.02)
    assert len(set(noisy.pool.ids)) == len(noisy.pool.ids) == len(noisy.pool.pixels)
    assert len({image.tobytes() for image in noise}) == len(noise)
    assert noisy.content_hash == with_noise(task_set, 0.25, seed=0)[0].content_hash
    assert noisy.content_hash != with_noise(task_set, 0.25, seed=1)[0].content_hash


def test_floating_point_noise_has_the_range_of_the_pool():
    task_set = random_tasks()
    noisy, rows = with_noise(task_set, 0.5, seed=0)
    assert noisy.pool.pixels.dtype == task_set.pool.pixels.dtype
    values = np.concatenate([pixels(noisy, row) for row in rows])
    low, high = task_set.pool.pixels.min(), task_set.pool.pixels.max()
    assert low <= values.min() < low + 0.2
    assert high - 0.2 < values.max() <= high


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_leaves_nothing_to_compare_is_refused(share):
    with pytest.raises(ConfigError, match=r"share: 0\.\d+ of 6 tasks are [06]; expected some"):
        with_noise(random_tasks(), share, seed=0)


def test_order_is_counted_pair_by_pair():
    influence = np.random.default_rng(0).integers(0, 6, (9, 4)).astype(float)
    noise, regular = np.array([1, 5, 6]), [0, 2, 3, 4, 7, 8]
    found = Order.of(influence, noise)
    for t in range(4):
        pairs = [
            (influence[a, t] > influence[b, t]) + 0.5 * (influence[a, t] == influence[b, t])
            for a, b in product(noise, regular)
        ]
        assert found.auc[t] == pytest.approx(np.mean(pairs))


def order_of(*auc):
    return Order(np.array(auc), np.full(len(auc), 0.01))


def test_shares_and_the_binomial_test():
    found = order_of(*[0.9] * 9, 0.1, 0.5)
    mean, proper, reverse, order, p, clear, clear_reverse = found.values
    assert (proper, reverse) == (9 / 11, 1 / 11)
    assert p == pytest.approx(2 * binom.sf(8, 10, 0.5))  # of 10: a tie is neither
    assert order == "proper"
    assert (clear, clear_reverse) == (9 / 11, 1 / 11)
    assert mean == pytest.approx((9 * 0.9 + 0.1 + 0.5) / 11)
    assert order_of(*[0.1] * 9, 0.9).values[3] == "reversed"
    assert order_of(0.9, 0.1).values[3] == "neither"
    assert order_of(0.5, 0.5).values[3:5] == ("neither", None)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return bench(trained(tmp_path_factory.mktemp("noise"), {"influence.curvature": "task-fisher"}))


def asked(**changes):
    settings = {"share": 0.25, "epochs": [1, 2], "weight_decay": [0.0, 0.5], **changes}
    return NoiseImagesConfig(kind="noise-images", **settings)


def test_four_trainings_are_scored(work):
    result = run(work, asked())
    (table,) = result.tables
    assert result.complete
    assert [row[:2] for row in table.rows] == [(1, 0.0), (2, 0.0), (1, 0.5), (2, 0.5)]
    assert set(result.details["noise_tasks"]) < set(work.problem.train.task_ids)
    assert all(len(auc) == 3 for auc in result.details["auc"].values())
    (figure,) = result.figures
    assert [series.name for series in figure.series] == ["weight decay 0", "weight decay 0.5"]
    share = COLUMNS.index("share in proper order")
    assert figure.series[1].y == tuple(row[share] for row in table.rows[2:])
    assert any("positive influence is harmful" in note.lower() for note in result.notes)


def test_training_and_scoring_have_the_weight_decay_and_the_noise(work):
    """One of the trainings by hand, and its influence by the dense task-Fisher."""
    result = run(work, asked(epochs=[2], weight_decay=[0.5]))
    noisy, rows = with_noise(work.problem.train, 0.25, 0)
    problem = work.problem
    recipe = problem.config.training.model_copy(update={"epochs": 2, "weight_decay": 0.5})
    start = TrainingState.initial(problem.template)
    params = MetaTrainer(problem.as_trained, noisy, recipe).run(start, lambda _: None).params
    changed = replace(problem, train=noisy)
    weights = replace(work.weights[0], params=params)
    (given,) = replace(work, problem=changed, weights=(weights,)).given(CandidateConfig(name="x"))
    own, targets = given.own.numpy(), given.targets.numpy()
    factor = len(noisy.tasks[0].query) / len(own)
    shift = 0.5 + 0.1 * factor * (own**2).sum() / len(own)
    hessian = factor * own.T @ own + shift * np.eye(own.shape[1])
    influence = -own @ np.linalg.solve(hessian, targets.T) / len(own)
    expected = Order.of(influence, rows)
    (auc,) = result.details["auc"].values()
    assert list(auc.values()) == pytest.approx(expected.auc.tolist())
    ((*_, regular, noise, evaluated, _), *_) = [
        row[: COLUMNS.index("mean AUC")] for row in result.tables[0].rows
    ]
    of_noise = np.isin(np.arange(len(own)), rows)
    loss = given.gradients.outer_loss
    assert (regular, noise) == pytest.approx((loss[~of_noise].mean(), loss[of_noise].mean()))
    assert evaluated == pytest.approx(given.target_gradients.outer_loss.mean())


def test_what_the_time_left_out_is_told(work, monkeypatch):
    once = Retrainer.run

    def half(self, requests):
        return [*once(self, requests[:1]), *[None] * (len(requests) - 1)]

    monkeypatch.setattr(Retrainer, "run", half)
    result = run(work, asked(weight_decay=[0.0]))
    assert not result.complete
    assert len(result.tables[0].rows) == 1
    assert "Not trained within the time: 2 epochs, weight decay 0." in result.notes
    done = iter([0, 1])

    def another_each_time(self, requests):
        place = next(done)
        return [one if i == place else None for i, one in enumerate(once(self, requests))]

    monkeypatch.setattr(Retrainer, "run", another_each_time)
    assert run(work, asked()).figures == ()  # no weight decay has both lengths
    monkeypatch.setattr(Retrainer, "run", lambda self, requests: [None] * len(requests))
    assert run(work, asked(weight_decay=[0.0])).figures == ()
