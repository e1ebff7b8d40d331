"""Noisy and contradictory tasks, by hand, by brute force and by simulation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from metaaudit.inputs.task_set import Task, TaskSet
from metaaudit.labelnoise.task_kinds import (
    calibration_of,
    contradictions,
    label_noise,
    noisy_q_values,
)
from tests.labelnoise.made_tasks import given_labels, made_tasks, sure_of

Labels = tuple[list[int], list[int]]

LAPSE = 0.02


def of_size(*sizes: int) -> TaskSet:
    """Tasks of two classes with so many labels each, four of them in the support."""
    return made_tasks([([0, 1, 0, 1], [k % 2 for k in range(size - 4)]) for size in sizes])


def at_most(wrong: np.ndarray, most: int) -> float:
    """The same by all combinations of events."""
    total = 0.0
    for happens in itertools.product([False, True], repeat=len(wrong)):
        if sum(happens) <= most:
            total += math.prod(np.where(happens, wrong, 1 - wrong))
    return total


def test_label_noise_is_the_expected_share() -> None:
    wrong = np.concatenate([np.array([0.5, 0, 0, 0, 1.0]), np.full(8, 0.25)])
    np.testing.assert_allclose(label_noise(wrong, of_size(5, 8)), [0.3, 0.25], rtol=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.13, 0.25, 0.4, 0.5, 0.7, 0.8, 0.95])
def test_the_number_of_wrong_labels_is_poisson_binomial(share: float) -> None:
    wrong = np.random.default_rng(0).uniform(0.6, 1, size=8)
    fine = at_most(wrong, math.floor(share * 8))
    found = noisy_q_values(wrong, of_size(8), share)
    assert found == pytest.approx([fine if fine <= 0.5 else 1.0], rel=1e-10)


def test_equal_probabilities_are_binomial() -> None:
    found = noisy_q_values(np.full(40, 0.17), of_size(40), 0.1)
    assert found == pytest.approx([binom.cdf(4, 40, 0.17)], rel=1e-10)


@pytest.mark.parametrize(
    ("share", "size", "allowed"), [(0.1, 30, 3), (0.29, 100, 29), (0.57, 100, 57), (0.1, 9, 0)]
)
def test_as_many_wrong_labels_as_can_be_put_up_with_are_not_noisy(
    share: float, size: int, allowed: int
) -> None:
    certain = np.arange(size) < allowed
    assert noisy_q_values(certain.astype(float), of_size(size), share) == pytest.approx([1.0])
    one_more = np.arange(size) < allowed + 1
    assert noisy_q_values(one_more.astype(float), of_size(size), share) == pytest.approx([0.0])


def test_noisy_q_values_are_mean_probabilities_of_being_fine() -> None:
    task_set = of_size(8, 6, 8)
    parts = [np.full(8, 0.5), np.full(6, 0.3), np.full(8, 0.9)]
    fine = [at_most(part, math.floor(0.25 * len(part))) for part in parts]
    assert fine[2] < fine[0] < fine[1] < 0.5
    found = noisy_q_values(np.concatenate(parts), task_set, 0.25)
    expected = [(fine[2] + fine[0]) / 2, sum(fine) / 3, fine[2]]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_tasks_without_wrong_labels_are_not_noisy_beside_those_that_are() -> None:
    """Many noisy tasks make up on average for one that is not, which is no reason to flag it."""
    task_set = of_size(*[10] * 40)
    wrong = np.concatenate([np.ones(200), np.zeros(200)])
    found = noisy_q_values(wrong, task_set, 0.1)
    assert (found[:20] <= 0.1).all()
    assert (found[20:] > 0.25).all()


def softened(log_p: np.ndarray, temperature: float, lapse: float) -> np.ndarray:
    """Probabilities at a temperature, mixed with a guess."""
    scaled = np.exp(log_p / temperature)
    scaled /= scaled.sum(axis=1, keepdims=True)
    mixed: np.ndarray = (1 - lapse) * scaled + lapse / log_p.shape[1]
    return mixed


def best_renaming(
    task: Task, log_p: np.ndarray, temperature: float = 1.0, lapse: float = LAPSE
) -> float:
    """The ratio by all renamings of a task's classes, from the query's log-probabilities."""
    classes = sorted({*task.support_y.tolist(), *task.query_y.tolist()})
    p = softened(log_p[:, classes], temperature, lapse)

    def fit(names: tuple[int, ...]) -> float:
        renamed = [names[classes.index(label)] for label in task.query_y.tolist()]
        return float(np.log(p[np.arange(len(renamed)), renamed]).sum())

    own = tuple(range(len(classes)))
    return max(fit(names) for names in itertools.permutations(own)) - fit(own)


@pytest.mark.parametrize(
    "labels",
    [
        ([0, 1], [0, 1, 0, 1]),
        ([0, 1, 2, 3], [0, 1, 2, 3, 3, 2]),
        ([0, 1, 2, 3], [2, 2, 2, 0]),  # classes that the query lacks
        ([0, 1, 2], [0, 3, 3, 1]),  # and one that the support lacks
        ([1, 4], [4, 4, 1]),
        ([2, 2], [2]),
    ],
)
@pytest.mark.parametrize(("temperature", "lapse"), [(1.0, LAPSE), (2.5, 0.2), (0.4, 1e-5)])
def test_the_best_renaming_is_that_of_brute_force(
    labels: Labels, temperature: float, lapse: float
) -> None:
    task_set = made_tasks([labels])
    for seed in range(10):
        log_p = np.log(np.random.default_rng(seed).dirichlet([0.4] * 5, task_set.n_instances))
        found = contradictions(log_p, task_set, temperature, lapse)
        (task,) = task_set.tasks
        expected = best_renaming(task, log_p[len(task.support) :], temperature, lapse)
        assert found.ratio == pytest.approx([expected], rel=1e-9, abs=1e-9)
        # Once renamed by what is told, no other renaming is likelier.
        (renaming,) = found.renamings
        query = np.array([renaming.get(label, label) for label in task.query_y.tolist()])
        again = replace(task, query_y=query)
        rest = best_renaming(again, log_p[len(task.support) :], temperature, lapse)
        assert rest == pytest.approx(0, abs=1e-9)
        assert all(old != new for old, new in renaming.items())


def test_nothing_is_told_of_classes_without_a_query() -> None:
    task_set = made_tasks([([0, 1, 2, 3], [2, 2, 2, 0])])
    for seed in range(20):
        log_p = np.log(np.random.default_rng(seed).dirichlet([0.4] * 4, task_set.n_instances))
        (renaming,) = contradictions(log_p, task_set, 1.0, LAPSE).renamings
        assert set(renaming) <= {0, 2}


def renamed_case(n_tasks: int, renamed: tuple[int, ...]) -> tuple[TaskSet, np.ndarray]:
    """Tasks of 3 classes, some with a query under other names; a learner that is mostly right."""
    right: Labels = ([0, 1, 2], [0, 0, 1, 1, 2, 2])
    other: Labels = ([0, 1, 2], [1, 1, 2, 2, 0, 0])
    task_set = made_tasks([other if k in renamed else right for k in range(n_tasks)])
    truth = given_labels(made_tasks([right] * n_tasks))
    return task_set, sure_of(truth, 3, 0.9)


def test_a_renamed_query_is_found() -> None:
    task_set, log_p = renamed_case(30, (4, 17))
    found = contradictions(log_p, task_set, 1.0, LAPSE)
    ratio, q_value = found.ratio, found.q_value
    # A query label of 1 is what the support calls 0.
    assert found.renamings[4] == found.renamings[17] == {1: 0, 2: 1, 0: 2}
    p = softened(log_p[:1], 1.0, LAPSE)[0]
    expected = 6 * np.log(p[0] / p[1])
    assert ratio[[4, 17]] == pytest.approx([expected] * 2, rel=1e-9)
    # Two e-values of exp(ratio) / 3!, of 30 tasks.
    q = 30 / (2 * np.exp(expected) / 6)
    assert q < 0.1
    assert q_value[[4, 17]] == pytest.approx([q, q], rel=1e-9)
    clean = np.setdiff1d(np.arange(30), [4, 17])
    assert not ratio[clean].any()
    assert not any(found.renamings[k] for k in clean)
    assert (q_value[clean] == 1).all()


def test_the_support_does_not_count() -> None:
    task_set, log_p = renamed_case(3, (1,))
    before = contradictions(log_p, task_set, 1.0, LAPSE)
    support = np.array([name == "support" for _, name, _ in task_set.instances()])
    log_p[support] = np.log(np.random.default_rng(0).dirichlet([1, 1, 1], support.sum()))
    after = contradictions(log_p, task_set, 1.0, LAPSE)
    assert np.array_equal(before.ratio, after.ratio)
    assert before.renamings == after.renamings


def test_q_values_are_those_of_e_values() -> None:
    task_set = made_tasks([([0, 1], [0, 1, 0, 1])] * 12)
    log_p = np.log(np.random.default_rng(3).dirichlet([0.3, 0.3], task_set.n_instances))
    both = contradictions(log_p, task_set, 1.0, LAPSE)
    e_values, found = np.exp(both.ratio) / 2, both.q_value
    for k, e_value in enumerate(e_values):
        # Wang and Ramdas: the i largest are rejected at fdr where the i-th is at least n / (i fdr).
        rates = [12 / ((e_values >= other).sum() * other) for other in e_values if other <= e_value]
        assert found[k] == pytest.approx(min(1.0, *rates), rel=1e-9)
    assert len(np.unique(found)) > 2


def drawn(rng: np.random.Generator, n_tasks: int, ways: int, sharpness: float) -> np.ndarray:
    """Logits ``[n_tasks, 3 * ways, ways]`` of a learner that is sure of something."""
    return sharpness * rng.standard_normal((n_tasks, 3 * ways, ways))


def labelled(rng: np.random.Generator, probabilities: np.ndarray) -> TaskSet:
    """Tasks with query labels that are drawn from these probabilities."""
    ways = probabilities.shape[-1]
    below = probabilities.cumsum(axis=-1)[..., :-1]
    labels = (rng.uniform(size=below.shape[:-1])[..., None] > below).sum(axis=-1)
    return made_tasks([(list(range(ways)), query.tolist()) for query in labels])


def with_support(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of all instances: of the support, anything."""
    n_tasks, _, ways = logits.shape
    whole = np.concatenate([np.zeros((n_tasks, ways, ways)), logits], axis=1).reshape(-1, ways)
    normalised: np.ndarray = whole - np.logaddexp.reduce(whole, axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize("ways", [2, 3])
@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_right_labels_seldom_fit_better_under_other_names(ways: int, sharpness: float) -> None:
    """The likelihood ratio over the number of renamings is an e-value: its mean is at most 1."""
    rng = np.random.default_rng(0)
    logits = drawn(rng, 2000, ways, sharpness)
    log_p = with_support(logits)
    p = np.exp(log_p).reshape(2000, -1, ways)[:, ways:]
    found = contradictions(log_p, labelled(rng, p), 1.0, 1e-9)
    e_values = np.exp(found.ratio) / math.factorial(ways)
    assert e_values.mean() <= 1 + 2 * e_values.std() / np.sqrt(len(e_values))
    assert e_values.mean() > 1 / math.factorial(ways)
    assert (found.q_value <= 0.1).sum() == 0


def test_one_renaming_is_as_likely_as_none_on_average() -> None:
    """With two classes there is one other renaming, and its likelihood ratio has mean 1."""
    rng = np.random.default_rng(1)
    log_p = with_support(drawn(rng, 5000, 2, 0.3))
    p = np.exp(log_p).reshape(5000, -1, 2)[:, 2:]
    task_set = labelled(rng, p)
    swapped = TaskSet(
        task_set.pool,
        tuple(
            Task(t.task_id, t.support, t.support_y, t.query, 1 - t.query_y) for t in task_set.tasks
        ),
    )
    up = contradictions(log_p, task_set, 1.0, 1e-9).ratio
    down = contradictions(log_p, swapped, 1.0, 1e-9).ratio
    # A ratio below 1 is told as that of the swapped labels.
    ratio = np.exp(up - down)
    assert ratio.mean() == pytest.approx(1, abs=3 * ratio.std() / np.sqrt(len(ratio)))


@pytest.mark.parametrize(
    ("temperature", "lapse"), [(1.0, 0.01), (0.5, 0.05), (2.0, 0.05), (3.0, 0.2), (8.0, 0.001)]
)
def test_temperature_and_lapse_are_recovered(temperature: float, lapse: float) -> None:
    rng = np.random.default_rng(0)
    logits = drawn(rng, 300, 5, 5.0 * temperature)
    flat = logits.reshape(-1, 5) - np.logaddexp.reduce(logits.reshape(-1, 5), axis=1, keepdims=True)
    p = softened(flat, temperature, lapse).reshape(logits.shape)
    found = calibration_of(with_support(logits), labelled(rng, p))
    assert found[0] == pytest.approx(temperature, rel=0.12)
    assert found[1] == pytest.approx(lapse, rel=0.1, abs=0.012)


def test_no_error_among_trusted_labels_does_not_prove_that_there_are_none() -> None:
    task_set = made_tasks([([0, 1, 2], [0, 1, 2] * 3)] * 10)
    _, lapse = calibration_of(sure_of(given_labels(task_set), 3, 0.999999), task_set)
    # Half an error in 90 labels.
    assert 1e-3 < lapse < 2e-2


def test_calibration_makes_the_trusted_labels_likelier() -> None:
    rng = np.random.default_rng(2)
    logits = drawn(rng, 60, 3, 6.0)
    flat = logits.reshape(-1, 3) - np.logaddexp.reduce(logits.reshape(-1, 3), axis=1, keepdims=True)
    task_set = labelled(rng, softened(flat, 3.0, 0.1).reshape(logits.shape))
    log_p = with_support(logits)
    labels = np.concatenate([task.query_y for task in task_set.tasks])

    def likelihood(temperature: float, lapse: float) -> float:
        p = softened(flat, temperature, lapse)
        return float(np.log(p[np.arange(len(labels)), labels]).sum() + 0.5 * np.log(lapse))

    best = likelihood(*calibration_of(log_p, task_set))
    others = itertools.product(np.geomspace(0.2, 15, 30), np.geomspace(1e-4, 0.9, 30))
    assert best >= max(likelihood(*other) for other in others) - 1e-3
