from __future__ import annotations

import numpy as np
import pytest

from metaaudit.robust import MAD_TO_SIGMA, q_values, robust_z, running_rates


def test_robust_z_is_in_units_of_the_scaled_deviation() -> None:
    # The median is 3 and the median absolute deviation 1.
    found = robust_z(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert found == pytest.approx(np.array([-2, -1, 0, 1, 97]) / MAD_TO_SIGMA, rel=1e-12)


@pytest.mark.parametrize(
    "values", [[0.0, 0.0, 0.0, 5.0], [1.0, 1.0, 1.0, 9.0], [1.0], [], [2.0, 2.0, 2.0, 2.0, 0.0]]
)
def test_robust_z_without_spread_is_zero(values: list[float]) -> None:
    found = robust_z(np.array(values))
    assert found.tolist() == [0.0] * len(values)


def test_robust_z_of_a_normal_sample_is_about_standard() -> None:
    values = 3 + 2 * np.random.default_rng(0).standard_normal(100_000)
    z = robust_z(values)
    assert np.std(z) == pytest.approx(1, abs=0.01)
    assert np.median(z) == pytest.approx(0, abs=1e-12)


def test_q_values_by_hand() -> None:
    # Sorted: 0.001 * 5 / 1, 0.011 * 5 / 2, 0.03 * 5 / 3, 0.5 * 5 / 4, 0.9 * 5 / 5.
    found = q_values(np.array([0.03, 0.001, 0.5, 0.011, 0.9]))
    np.testing.assert_allclose(found, [0.05, 0.005, 0.625, 0.0275, 0.9], rtol=1e-12)


def rejected(p: np.ndarray, fdr: float) -> np.ndarray:
    """Benjamini and Hochberg: all up to the largest i with p_(i) <= i / n fdr."""
    below = [p_i for i, p_i in enumerate(np.sort(p), start=1) if p_i <= i / len(p) * fdr]
    result: np.ndarray = p <= max(below, default=-1.0)
    return result


@pytest.mark.parametrize("seed", range(5))
def test_a_q_value_is_the_smallest_rate_at_which_it_is_rejected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.round(rng.uniform(size=30) ** 3, 2)  # with ties
    found = q_values(p)
    for fdr in (0.01, 0.0501, 0.101, 0.251, 0.51, 0.99):
        assert np.array_equal(found <= fdr, rejected(p, fdr)), fdr
    for value in np.unique(p):
        assert len(np.unique(found[p == value])) == 1


@pytest.mark.parametrize("p", [[], [0.0], [1.0], [0.3, 0.3], [1.0, 1.0, 1.0]])
def test_q_values_of_few(p: list[float]) -> None:
    np.testing.assert_allclose(q_values(np.array(p)), p, rtol=1e-12)


def test_running_rates_by_hand() -> None:
    # The surest first; of two that are equally sure, that of the higher score.
    errors, scores = np.array([0.4, 0.0, 0.2, 0.4]), np.array([1.0, 0.0, 0.0, 2.0])
    expected = [1.0 / 4, 0.0, 0.1, 0.6 / 3]
    np.testing.assert_allclose(running_rates(errors, scores), expected, rtol=1e-12)


def test_what_is_alike_is_flagged_together() -> None:
    errors = np.array([0.3, 0.0, 0.3, 0.3, 0.1])
    scores = np.array([5.0, 9.0, 5.0, 4.0, 9.0])
    expected = [0.7 / 4, 0.0, 0.7 / 4, 1.0 / 5, 0.05]
    np.testing.assert_allclose(running_rates(errors, scores), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_rate_is_the_mean_of_all_that_are_no_less_sure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.integers(0, 6, size=40) / 10
    scores = rng.integers(0, 4, size=40).astype(float)
    found = running_rates(errors, scores)
    for error, score, rate in zip(errors, scores, found, strict=True):
        front = (errors < error) | ((errors == error) & (scores >= score))
        assert rate == pytest.approx(errors[front].mean(), rel=1e-12)
    order = rng.permutation(40)
    shuffled = running_rates(errors[order], scores[order])
    np.testing.assert_allclose(shuffled, found[order], rtol=1e-12)


def test_what_is_more_likely_an_error_is_not_let_through_by_others() -> None:
    errors = np.array([*[0.0] * 30, 0.5, 0.51, 1.0])
    found = running_rates(errors, np.zeros(33))
    np.testing.assert_allclose(found, [*[0.0] * 30, 0.5 / 31, 1.0, 1.0], rtol=1e-12)


def test_running_rates_of_none() -> None:
    assert running_rates(np.array([]), np.array([])).tolist() == []
