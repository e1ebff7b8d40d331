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
    errors = np.array([0.4, 0.0, 0.2])
    np.testing.assert_allclose(running_rates(errors, [1, 2, 0]), [0.2, 0.0, 0.1], rtol=1e-12)
    # The first two together err less often than the first alone.
    np.testing.assert_allclose(running_rates(errors, [0, 1, 2]), [0.2, 0.2, 0.2], rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_rate_is_the_smallest_mean_of_a_front_that_holds_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors, order = rng.uniform(0, 0.5, size=25), rng.permutation(25)
    found = running_rates(errors, order.tolist())
    for place, position in enumerate(order):
        fronts = [errors[order[:end]].mean() for end in range(place + 1, 26)]
        assert found[position] == pytest.approx(min(fronts), rel=1e-12)
    assert (np.diff(found[order]) >= 0).all()


def test_running_rates_of_none() -> None:
    assert running_rates(np.array([]), []).tolist() == []
