"""Signal-to-noise of gradients, against closed form on Gaussian ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metaaudit.selection import by_parameter, gram, measured_agreement, signal_to_noise

P = 30
SPREAD = np.linspace(0.2, 2.0, P)
MEAN = np.linspace(-1.0, 1.0, P) * 0.3
RATIO = float((MEAN**2).sum() / (SPREAD**2).sum())


def gaussian(n: int, seed: int, mean: np.ndarray = MEAN) -> np.ndarray:
    return mean + SPREAD * np.random.default_rng(seed).standard_normal((n, P))


def test_the_estimates_have_no_bias() -> None:
    found = [signal_to_noise(gram(gaussian(12, seed))) for seed in range(3000)]
    for values, expected in (
        ([one.signal for one in found], (MEAN**2).sum()),
        ([one.noise for one in found], (SPREAD**2).sum()),
    ):
        error = np.std(values) / math.sqrt(len(values))
        assert np.mean(values) == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("mean", [MEAN, 3 * MEAN, 0 * MEAN], ids=["usual", "strong", "none"])
def test_intervals_hold_the_ratio_as_often_as_they_say(mean: np.ndarray) -> None:
    """Where there is no signal at all, the jackknife is on the safe side."""
    ratio = float((mean**2).sum() / (SPREAD**2).sum())
    inside = 0
    for seed in range(600):
        low, high = signal_to_noise(gram(gaussian(80, seed, mean))).interval
        inside += low <= ratio <= high
    assert 0.92 <= inside / 600 <= 1.0


def test_every_parameter_has_its_own() -> None:
    found = np.array([by_parameter(gaussian(400, seed)) for seed in range(400)])
    error = found.std(axis=0) / len(found) ** 0.5
    # E[1 / s^2] of Gaussian samples is (n - 1) / (n - 3) / Sigma.
    expected = MEAN**2 / SPREAD**2 * 399 / 397
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all()


def test_a_parameter_that_does_not_vary_has_none() -> None:
    assert np.isnan(by_parameter(np.ones((5, 2)))).all()


@pytest.mark.parametrize("batch", [1, 5, 40])
def test_the_agreement_of_batches_is_as_predicted(batch: int) -> None:
    gradients = gaussian(4000, 0)
    predicted = signal_to_noise(gram(gradients)).agreement(batch)
    assert predicted == pytest.approx(batch * RATIO / (1 + batch * RATIO), rel=0.1)
    assert measured_agreement(gram(gradients), batch, 400, 0) == pytest.approx(predicted, abs=0.04)


def test_at_the_batch_where_signal_equals_noise_batches_agree_by_half() -> None:
    found = signal_to_noise(gram(gaussian(5000, 1)))
    assert found.batch == pytest.approx(1 / RATIO, rel=0.1)
    assert found.agreement(round(found.batch)) == pytest.approx(0.5, abs=0.02)


def test_without_signal_no_batch_is_large_enough() -> None:
    gradients = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    found = signal_to_noise(gram(gradients))
    assert found.signal < 0 and found.batch == math.inf and found.of_mean(1000) == 0
    assert found.agreement(1) < 0 and found.agreement(1000) == -1


def test_gradients_that_cancel_out_make_halves_opposite() -> None:
    """As those of all training tasks do where training rests."""
    gradients = gaussian(40, 3)
    products = gram(gradients - gradients.mean(axis=0))
    found = signal_to_noise(products)
    for batch in (1, 10, 20):
        measured = measured_agreement(products, batch, 2000, 0)
        assert measured == pytest.approx(found.agreement(batch), abs=0.02)
    assert found.agreement(20) == pytest.approx(-1, abs=0.06)


def test_gradients_that_are_all_alike_are_all_signal() -> None:
    found = signal_to_noise(gram(np.ones((4, 3))))
    assert found.ratio == math.inf and found.agreement(1) == 1.0


def test_draws_depend_on_the_seed_alone() -> None:
    products = gram(gaussian(50, 2))
    once, again, other = (measured_agreement(products, 5, 20, seed) for seed in (0, 0, 1))
    assert once == again != other
