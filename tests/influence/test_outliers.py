"""The outlier test: how often it errs, what it finds, and what holds a flag back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from metaaudit.influence import bootstrap_interval, harmful_tasks, upper_outliers
from metaaudit.influence.outliers import FEWEST, laplace_tail, mirrored_tail
from metaaudit.robust import robust_z

Draw = Callable[[np.random.Generator, int], np.ndarray]

DRAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "t5": lambda rng, n: rng.standard_t(5, size=n),
}
FDR, EFFECT = 0.05, 4.0


def one_target(values: np.ndarray) -> np.ndarray:
    return values[:, None]


def test_laplace_tail_is_uniform_on_laplace_values() -> None:
    z = robust_z(np.random.default_rng(0).laplace(5, 3, 200_000))
    p = np.sort(laplace_tail(z))
    # Kolmogorov-Smirnov distance of 200,000 uniform values is about 0.003.
    assert np.abs(p - np.linspace(0, 1, len(p))).max() < 0.006


def test_laplace_tail_by_hand() -> None:
    # The MAD of a Laplace distribution is its median absolute value: 1.4826 of them is z = 1.
    p = laplace_tail(np.array([0.0, 1 / 1.4826, -1 / 1.4826, 2 / 1.4826]))
    np.testing.assert_allclose(p, [0.5, 0.25, 0.75, 0.125], rtol=1e-12)


@pytest.mark.parametrize("draw", [*DRAWS.values(), lambda rng, n: rng.standard_cauchy(n)])
def test_the_mirrored_tail_is_never_below_the_laplace_tail(draw: Draw) -> None:
    for seed in range(20):
        z = robust_z(draw(np.random.default_rng(seed), 100))
        p = mirrored_tail(z)
        assert (p >= laplace_tail(z)).all()
        assert p.max() <= 1
        assert (np.diff(p[np.argsort(z)]) <= 0).all()


def test_the_mirrored_tail_is_as_heavy_as_the_lower_one() -> None:
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(3, size=20_000)
    # Light above, heavy below.
    z = robust_z(np.where(heavy < 0, heavy, np.abs(rng.standard_normal(20_000))))
    p = mirrored_tail(np.append(z, [6.0, 10.0]))[-2:]
    np.testing.assert_allclose(p, [(z < -6).mean(), (z < -10).mean()], rtol=0.4)
    # The upper values do not count.
    lower = mirrored_tail(np.append(z[z < 0], np.full((z >= 0).sum(), 6.0)))[-1]
    assert lower == pytest.approx(p[0], rel=1e-3)


def test_a_tail_beyond_a_broad_shoulder_is_no_lighter_than_that_of_laplace() -> None:
    """Even if the lowest values lie close together, far below the rest."""
    lowest = -6 + 0.001 * np.arange(24)
    z = robust_z(np.concatenate([lowest, np.linspace(-1, 1, 160), -lowest]))
    threshold = -np.quantile(z, 0.1)
    scale = 1 / (1.4826 * np.log(2))
    for beyond in (1.0, 3.0, 10.0):
        p = mirrored_tail(np.append(z, threshold + beyond))[-1]
        assert p == pytest.approx(0.1 * np.exp(-beyond / scale), rel=0.1)


@pytest.mark.parametrize("effect", [0.0, EFFECT])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_clean_data_is_rarely_flagged(draw: Draw, effect: float) -> None:
    rng = np.random.default_rng(0)
    flagged = [upper_outliers(draw(rng, 200), FDR, effect).flagged.any() for _ in range(400)]
    # The false-discovery rate of a data set without outliers is the share of runs with a flag.
    assert np.mean(flagged) <= 0.08


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_planted_outliers_are_flagged(draw: Draw) -> None:
    found, others = [], []
    for seed in range(30):
        values = draw(np.random.default_rng(seed), 200)
        values[[3, 50, 120]] = 30
        flagged = harmful_tasks(one_target(values), FDR, EFFECT).flagged
        found.append(flagged[[3, 50, 120]].mean())
        others.append(flagged.sum() - flagged[[3, 50, 120]].sum())
    assert np.mean(found) > 0.9
    assert np.mean(others) <= 0.3


def test_neither_place_nor_unit_counts() -> None:
    values = np.random.default_rng(0).laplace(size=100)
    values[7] = 20
    before, after = (upper_outliers(v, FDR, EFFECT) for v in (values, 1e-3 * values + 5))
    np.testing.assert_allclose(after.z, before.z, rtol=1e-9, atol=1e-9)
    assert np.flatnonzero(before.flagged).tolist() == np.flatnonzero(after.flagged).tolist() == [7]


def test_only_upper_outliers_are_flagged() -> None:
    values = np.random.default_rng(0).laplace(size=200)
    values[7] = -40
    assert not upper_outliers(values, FDR, EFFECT).flagged.any()


def test_few_tasks_are_never_flagged() -> None:
    values = np.random.default_rng(0).laplace(size=FEWEST - 1)
    values[3] = 1e6
    few = upper_outliers(values, FDR, EFFECT)
    assert not few.flagged.any()
    assert (few.q_value == 1).all()
    assert np.flatnonzero(upper_outliers(np.append(values, 0.1), FDR, EFFECT).flagged) == [3]


@pytest.mark.parametrize("effect", [0.0, EFFECT])
def test_nothing_is_flagged_without_a_spread(effect: float) -> None:
    values = np.zeros(50)
    values[:20] = 1e6
    found = upper_outliers(values, FDR, effect)
    assert not found.z.any()
    assert not found.flagged.any()
    assert (found.q_value == 1).all()


def test_equal_lower_values_are_no_obstacle() -> None:
    """The lowest tenth and more may be one value, so that no tail is left to fit."""
    values = np.concatenate([np.full(30, -1.0), np.linspace(-1, 1, 69), [60.0]])
    assert np.flatnonzero(upper_outliers(values, FDR, EFFECT).flagged).tolist() == [99]


def test_an_effect_below_the_least_one_holds_a_flag_back() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, size=200)
    values[7] = 8
    z = float(robust_z(values)[7])
    for effect, flagged in [(z - 0.1, [7]), (z + 0.1, [])]:
        found = upper_outliers(values, 0.1, effect)
        assert np.flatnonzero(found.flagged).tolist() == flagged, effect
        assert (found.q_value[7] == 1) == (not flagged)


def many_targets(seed: int = 0, n_targets: int = 20) -> np.ndarray:
    """Influences ``[100, n_targets]`` of which that of task 7 is an outlier."""
    influence = 0.1 * np.random.default_rng(seed).standard_normal((100, n_targets))
    influence[7] += 3
    return influence


def test_an_interval_that_holds_zero_holds_a_flag_back() -> None:
    influence = many_targets()
    assert np.flatnonzero(harmful_tasks(influence, FDR, EFFECT).flagged).tolist() == [7]
    # The same mean, all from one evaluation task.
    single = influence.copy()
    single[7] = 0
    single[7, 3] = 20 * influence[7].mean()
    single[7, 4:] -= 0.01
    found = harmful_tasks(single, FDR, EFFECT)
    assert upper_outliers(single.mean(axis=1), FDR, EFFECT).flagged[7]
    assert not found.flagged.any()
    assert found.q_value[7] == 1
    assert found.z[7] > EFFECT


@pytest.mark.parametrize("n_targets", [1, 10])
def test_a_helpful_task_is_never_flagged(n_targets: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.laplace(size=(200, 1)) * 1e-3 - 5 + 1e-6 * rng.standard_normal((200, n_targets))
    values[7] = -1  # an outlier upwards, and still helpful
    assert upper_outliers(values.mean(axis=1), FDR, EFFECT).flagged[7]
    assert not harmful_tasks(values, FDR, EFFECT).flagged.any()


def test_flags_follow_q_values() -> None:
    found = harmful_tasks(many_targets(), FDR, EFFECT)
    assert np.array_equal(found.flagged, found.q_value <= FDR)
    assert np.array_equal(found.z, robust_z(many_targets().mean(axis=1)))
    strict = harmful_tasks(many_targets(), float(found.q_value[7]) / 2, EFFECT)
    assert not strict.flagged.any()
    assert np.array_equal(strict.q_value, found.q_value)


def test_one_target_has_no_interval() -> None:
    assert bootstrap_interval(np.ones((5, 1))) is None


def test_the_interval_covers_the_mean() -> None:
    """Of tasks whose influence has mean 1 over evaluation tasks, about 95% of the intervals do."""
    influence = 1 + np.random.default_rng(0).standard_normal((2000, 40))
    ends = bootstrap_interval(influence)
    assert ends is not None
    low, high = ends
    assert ((low <= 1) & (high >= 1)).mean() == pytest.approx(0.94, abs=0.02)
    # 2 * 1.96 standard errors of a mean of 40.
    assert (high - low).mean() == pytest.approx(3.92 / np.sqrt(40), rel=0.05)
    mean = influence.mean(axis=1)
    assert ((low < mean) & (mean < high)).all()


def test_equal_influences_have_an_interval_of_no_width() -> None:
    ends = bootstrap_interval(np.full((2, 7), 0.25))
    assert ends is not None
    np.testing.assert_allclose(ends, np.full((2, 2), 0.25), rtol=1e-12)


def test_an_interval_does_not_depend_on_the_other_tasks() -> None:
    influence = many_targets()
    together = bootstrap_interval(influence)
    assert together is not None
    for row in (0, 7, 99):
        alone = bootstrap_interval(influence[[row]])
        assert alone is not None
        assert (alone[0][0], alone[1][0]) == (together[0][row], together[1][row])
    again = bootstrap_interval(influence)
    assert again is not None
    assert np.array_equal(again, together)


def test_no_tasks_have_no_intervals() -> None:
    ends = bootstrap_interval(np.ones((0, 3)))
    assert ends is not None
    assert [len(end) for end in ends] == [0, 0]
