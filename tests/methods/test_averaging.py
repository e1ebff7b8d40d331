"""The mean of scores over checkpoints, for each method as it is defined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaaudit.methods import METHODS, Factored, MethodScores, averaged_scores, comparable

TASKS, TARGETS, INSTANCES = 30, 4, 90
PLAIN = ("loss", "grad-norm", "random")
EVENED = tuple(name for name in METHODS if name not in (*PLAIN, "trak", "tracin"))


def made(seed: int, scale: float = 1.0, **solver: object) -> MethodScores:
    """What a method might say of a checkpoint, with influences of some size."""
    rng = np.random.default_rng(seed)
    parts = (
        rng.uniform(size=TASKS),
        scale * rng.standard_normal((TASKS, TARGETS)),
        rng.uniform(size=INSTANCES),
        scale * rng.standard_normal(INSTANCES),
    )
    whole = Factored(*parts)
    told = {"converged": seed == 0, "solver": f"of {seed}", **solver}
    tasks, instances = whole.task_influence, whole.instance_influence
    return MethodScores(tasks, instances, told, ("both", f"of {seed}"), whole)


def spread(values: np.ndarray) -> np.ndarray:
    """Median absolute deviation over items."""
    deviations = np.abs(values - np.median(values, axis=0))
    result: np.ndarray = np.median(deviations, axis=0)
    return result


@pytest.mark.parametrize("method", METHODS)
def test_one_checkpoint_is_itself(method: str) -> None:
    one = made(0)
    assert averaged_scores(method, [one]) is one


@pytest.mark.parametrize("method", METHODS)
def test_what_is_told_is_mostly_of_the_first(method: str) -> None:
    found = averaged_scores(method, [made(0), made(1)])
    assert found.solver == {"converged": False, "solver": "of 0"}
    assert found.warnings == ("both", "of 0", "of 1")


@pytest.mark.parametrize("method", EVENED)
def test_a_checkpoint_with_large_influences_weighs_no_more(method: str) -> None:
    small, large = made(0), made(1, scale=100)
    found = averaged_scores(method, [small, large])
    for name in ("task_influence", "instance_influence"):
        values = getattr(found, name)
        sizes = [spread(getattr(one, name)) for one in (small, large)]
        each = [getattr(one, name) / size for one, size in zip((small, large), sizes, strict=True)]
        expected = (each[0] + each[1]) / 2 * (sizes[0] + sizes[1]) / 2
        np.testing.assert_allclose(values, expected, rtol=1e-9)


@pytest.mark.parametrize("method", PLAIN)
def test_what_has_a_unit_of_its_own_is_averaged_plainly(method: str) -> None:
    each = [made(0), made(1, scale=100)]
    found = averaged_scores(method, each)
    expected = (each[0].task_influence + each[1].task_influence) / 2
    np.testing.assert_allclose(found.task_influence, expected, rtol=1e-12)


def test_an_outlier_of_one_checkpoint_stays_one() -> None:
    each = [made(0), made(1)]
    large = each[0].task_influence.copy()
    large[3] += 1000 * spread(large)
    found = averaged_scores("dot", [replace(each[0], task_influence=large), each[1]])
    assert (np.abs(found.task_influence[3]) > 100 * spread(found.task_influence)).all()


def test_a_checkpoint_without_influence_is_no_obstacle() -> None:
    other = made(1)
    flat = replace(
        made(0),
        task_influence=np.zeros((TASKS, TARGETS)),
        instance_influence=np.zeros(INSTANCES),
    )
    found = averaged_scores("task-if", [flat, other])
    order = np.argsort(found.task_influence[:, 0])
    assert np.array_equal(order, np.argsort(other.task_influence[:, 0]))
    assert np.isfinite(found.instance_influence).all()


def test_trak_averages_weights_and_products_by_themselves() -> None:
    each = [made(seed, scale=1 + 9 * seed) for seed in range(3)]
    found = averaged_scores("trak", each)
    parts = [one.factored for one in each if one.factored]
    weights = np.mean([part.task_weights for part in parts], axis=0)
    products = np.mean([part.task_products for part in parts], axis=0)
    np.testing.assert_allclose(found.task_influence, weights[:, None] * products, rtol=1e-12)
    weights = np.mean([part.instance_weights for part in parts], axis=0)
    products = np.mean([part.instance_products for part in parts], axis=0)
    np.testing.assert_allclose(found.instance_influence, weights * products, rtol=1e-12)


def test_tracin_is_a_sum_at_the_learning_rates_or_at_none() -> None:
    each = [made(seed, learning_rate=0.1 * (seed + 1)) for seed in range(3)]
    total = sum(one.task_influence for one in each)
    found = averaged_scores("tracin", each)
    np.testing.assert_allclose(found.task_influence, total, rtol=1e-12)
    unknown = [replace(one, solver={**one.solver, "learning_rate": None}) for one in each]
    found = averaged_scores("tracin", unknown)
    np.testing.assert_allclose(found.task_influence, total, rtol=1e-12)
    assert found.warnings == ("both", "of 0", "of 1", "of 2")


def test_tracin_counts_all_alike_where_some_learning_rates_are_unknown() -> None:
    known, unknown = made(0, learning_rate=0.1), made(1, learning_rate=None)
    found = averaged_scores("tracin", [known, unknown])
    expected = known.task_influence / 0.1 + unknown.task_influence
    np.testing.assert_allclose(found.task_influence, expected, rtol=1e-12)
    expected = known.instance_influence / 0.1 + unknown.instance_influence
    np.testing.assert_allclose(found.instance_influence, expected, rtol=1e-12)
    assert "only some of the checkpoints tell their learning rate" in found.warnings[-1]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "trak"])
def test_what_is_compared_over_checkpoints_has_the_mean_for_its_mean(method: str) -> None:
    each = [made(seed, scale=seed + 1, learning_rate=0.1) for seed in range(3)]
    tasks, instances = comparable(method, each)
    found = averaged_scores(method, each)
    np.testing.assert_allclose(tasks.mean(axis=0), found.task_influence, rtol=1e-12)
    np.testing.assert_allclose(instances.mean(axis=0), found.instance_influence, rtol=1e-12)
