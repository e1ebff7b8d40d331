"""The linear datamodeling score and its errors, against SciPy, brute force and simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr

from metaaudit.fidelity.statistics import (
    Bootstrap,
    Floats,
    Resampled,
    constant_columns,
    lds,
    noise_ceiling,
    predicted_losses,
    seed_correlation,
)


def numbers(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_score_is_spearmans_correlation_of_every_target() -> None:
    x, y = numbers(20, 6), numbers(20, 6, seed=1)
    x = np.round(x)  # many ties
    expected = [spearmanr(x[:, t], y[:, t]).statistic for t in range(6)]
    np.testing.assert_allclose(lds(x, y), expected, atol=1e-12)


def test_equal_numbers_rank_nothing() -> None:
    x, y = numbers(20, 2), numbers(20, 2, seed=1)
    x[:, 1] = 0.1
    assert lds(x, y)[1] == lds(y, x)[1] == 0
    assert (constant_columns(x), constant_columns(y)) == (1, 0)


def test_removing_a_harmful_item_lowers_the_predicted_loss() -> None:
    influence = np.array([[1.0], [0.0], [-2.0]])
    kept = ~np.eye(3, dtype=bool)
    np.testing.assert_array_equal(predicted_losses(influence, kept)[:, 0], [-1, 0, 2])


def test_the_predicted_loss_is_that_of_what_is_kept_but_for_a_constant() -> None:
    influence, kept = numbers(9, 4), numbers(30, 9, seed=1) > 0
    constant = predicted_losses(influence, kept) - kept @ influence
    np.testing.assert_allclose(constant, np.broadcast_to(constant[0], constant.shape), atol=1e-12)


def noisy(n: int, seeds: int, targets: int, noise: float, seed: int = 0) -> tuple[Floats, Floats]:
    """Expected losses, and those of single seeds."""
    truth = numbers(n, targets, seed=2 * seed)
    return truth, truth[:, None] + noise * numbers(n, seeds, targets, seed=2 * seed + 1)


@pytest.mark.parametrize("seeds", [2, 4])
@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_a_perfect_predictor_reaches_the_ceiling(seeds: int, noise: float) -> None:
    truth, losses = noisy(400, seeds, 50, noise)
    ceiling = noise_ceiling(losses)
    assert ceiling == pytest.approx(lds(truth, losses.mean(axis=1)).mean(), abs=0.02)


def test_the_ceiling_needs_seeds_and_is_0_of_noise_alone() -> None:
    assert noise_ceiling(numbers(50, 1, 3)) is None
    opposed = np.stack([numbers(50, 3), -numbers(50, 3)], axis=1)
    assert seed_correlation(opposed).tolist() == pytest.approx([-1, -1, -1])
    assert noise_ceiling(opposed) == 0


def test_two_equal_seeds_leave_no_noise() -> None:
    assert noise_ceiling(np.stack([numbers(50, 3)] * 2, axis=1)) == pytest.approx(1)


def test_resamples_are_those_of_brute_force() -> None:
    predicted, actual = np.round(numbers(12, 5)), numbers(12, 5, seed=1)
    bootstrap = Bootstrap.of((12, 5), 30, seed=3)
    (found,) = bootstrap.scores([predicted], actual)
    assert found.value == pytest.approx(lds(predicted, actual).mean())
    for b in range(30):
        rows = np.repeat(np.arange(12), bootstrap.rows[:, b].astype(int))
        columns = np.repeat(np.arange(5), bootstrap.columns[:, b].astype(int))
        assert (len(rows), len(columns)) == (12, 5)
        each = lds(predicted[rows], actual[rows])
        expected = [each.mean(), lds(predicted, actual)[columns].mean(), each[columns].mean()]
        np.testing.assert_allclose(found.draws[:, b], expected, atol=1e-12)


def test_resamples_of_the_ceiling_are_those_of_brute_force() -> None:
    _, losses = noisy(15, 3, 4, 0.5)
    bootstrap = Bootstrap.of((15, 4), 10)
    found = bootstrap.ceiling(losses)
    assert found and found.value == pytest.approx(noise_ceiling(losses))
    for b in range(10):
        rows = np.repeat(np.arange(15), bootstrap.rows[:, b].astype(int))
        columns = np.repeat(np.arange(4), bootstrap.columns[:, b].astype(int))
        expected = [losses[rows], losses[:, :, columns], losses[rows][:, :, columns]]
        assert found.draws[:, b].tolist() == pytest.approx([noise_ceiling(one) for one in expected])
    assert bootstrap.ceiling(losses[:, :1]) is None


def shared(seed: int) -> tuple[Floats, Floats]:
    """Targets that have most of their losses in common."""
    common = numbers(40, 1, seed=3 * seed)
    actual = common + 0.4 * numbers(40, 15, seed=3 * seed + 1)
    return common + 2 * numbers(40, 1, seed=3 * seed + 2) + 0 * actual, actual


def apart(seed: int) -> tuple[Floats, Floats]:
    """Targets that have nothing in common."""
    actual = numbers(40, 15, seed=2 * seed)
    return actual + 2 * numbers(40, 15, seed=2 * seed + 1), actual


def unlike(seed: int) -> tuple[Floats, Floats]:
    """Targets that are predicted well or badly."""
    actual = numbers(40, 15, seed=3 * seed)
    weight = np.random.default_rng(3 * seed + 1).uniform(-1, 1, 15)
    return weight * actual + 0.5 * numbers(40, 15, seed=3 * seed + 2), actual


@pytest.mark.parametrize("simulate", [shared, apart, unlike])
def test_the_standard_error_is_the_spread_over_experiments(
    simulate: Callable[[int], tuple[Floats, Floats]],
) -> None:
    values = [lds(*simulate(seed)).mean() for seed in range(400)]
    errors = []
    for seed in range(40):
        predicted, actual = simulate(seed)
        (found,) = Bootstrap.of(actual.shape, 200, seed).scores([predicted], actual)
        errors.append(found.estimate.error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


def test_an_error_over_targets_alone_is_too_small() -> None:
    values = [lds(*shared(seed)).mean() for seed in range(200)]
    alone = [lds(*shared(seed)).std() / 15**0.5 for seed in range(200)]
    assert np.mean(alone) < 0.5 * np.std(values)


def test_a_difference_of_like_candidates_is_surer_than_either() -> None:
    predicted, actual = shared(0)
    other = predicted + 0.1 * numbers(40, 1, seed=9)
    one, two = Bootstrap.of(actual.shape, 300).scores([predicted, other], actual)
    assert one.minus(two).estimate.error < 0.5 * one.estimate.error
    assert one.minus(two).value == one.value - two.value
    assert one.minus(one).estimate.interval == (0, 0)


def test_the_error_of_a_ratio_is_the_spread_over_experiments() -> None:
    def once(seed: int) -> tuple[Resampled, Resampled]:
        truth, losses = noisy(40, 2, 15, 1.0, seed)
        bootstrap = Bootstrap.of((40, 15), 200, seed)
        predicted = truth + numbers(40, 15, seed=10_000 + seed)
        (score,) = bootstrap.scores([predicted], losses.mean(axis=1))
        ceiling = bootstrap.ceiling(losses)
        assert ceiling
        return score, ceiling

    pairs = [once(seed) for seed in range(120)]
    spread = np.std([score.value / ceiling.value for score, ceiling in pairs])
    ratios = [score.over(ceiling) for score, ceiling in pairs[:40]]
    errors = [one.estimate.error for one in ratios if one]
    assert np.mean(errors) == pytest.approx(spread, rel=0.2)


def test_nothing_is_a_share_of_a_ceiling_of_0() -> None:
    score = Resampled(0.5, np.zeros((3, 2)))
    assert score.over(Resampled(0.0, np.zeros((3, 2)))) is None
    low, high = score.estimate.interval
    assert low == high == 0.5 or (low, high) == (0.5, 0.5)
