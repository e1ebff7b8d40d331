"""The outlier test of the ``harmful`` flag."""

import numpy as np
import pytest

from metaaudit.influence import discoveries, harmful_tasks, laplace_tail
from metaaudit.robust import robust_z


def test_robust_z_of_a_normal_sample_is_about_standard():
    values = 3 + 2 * np.random.default_rng(0).standard_normal(100_000)
    z = robust_z(values)
    assert np.std(z) == pytest.approx(1, abs=0.01) and np.median(z) == pytest.approx(0, abs=1e-12)


def test_robust_z_without_spread_is_zero():
    assert not robust_z(np.array([1.0, 1.0, 1.0, 9.0])).any()


def test_laplace_tail_is_uniform_on_laplace_values():
    z = robust_z(np.random.default_rng(0).laplace(5, 3, 200_000))
    p = np.sort(laplace_tail(z))
    # Kolmogorov-Smirnov distance of 200,000 uniform values is about 0.003.
    assert np.abs(p - np.linspace(0, 1, len(p))).max() < 0.006


def test_discoveries_follow_benjamini_and_hochberg():
    p = np.array([0.03, 0.001, 0.5, 0.011, 0.9])
    # Sorted: 0.001 <= 0.01, 0.011 <= 0.02, 0.03 <= 0.03, 0.5 > 0.04.
    assert discoveries(p, 0.05).tolist() == [True, True, False, True, False]
    assert not discoveries(p, 0.004).any()


@pytest.mark.parametrize("draw", ["laplace", "standard_normal"])
def test_clean_data_is_rarely_flagged(draw):
    rng = np.random.default_rng(0)
    flagged = [harmful_tasks(getattr(rng, draw)(size=200), fdr=0.05)[1].any() for _ in range(400)]
    # The false-discovery rate of a data set without outliers is the share of runs with a flag.
    assert np.mean(flagged) <= 0.08


def test_planted_outliers_are_flagged():
    values = np.random.default_rng(0).laplace(size=200)
    values[[3, 50, 120]] = 15
    _, harmful = harmful_tasks(values, fdr=0.05)
    assert {3, 50, 120} <= set(np.flatnonzero(harmful)) and harmful.sum() <= 4


def test_a_helpful_task_is_never_flagged():
    values = np.random.default_rng(0).laplace(size=200) * 1e-3 - 5
    values[7] = -1  # an outlier upwards, and still helpful
    _, harmful = harmful_tasks(values, fdr=0.05)
    assert not harmful.any()


def test_few_tasks_are_never_flagged():
    values = np.random.default_rng(0).laplace(size=19)
    values[3] = 1e6
    assert not harmful_tasks(values, fdr=0.05)[1].any()
    assert harmful_tasks(np.append(values, 0.1), fdr=0.05)[1].any()
