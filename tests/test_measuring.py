"""The mean over several checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from metaaudit.label_stages import LabelEvidence
from metaaudit.labelnoise import Evidence
from metaaudit.measuring import Measured, averaged, influence_spread
from metaaudit.methods import MethodScores, averaged_scores

TASKS, TARGETS, INSTANCES = 30, 4, 90

Floats = np.ndarray


def log_probabilities(rng: np.random.Generator) -> Floats:
    drawn: Floats = np.log(rng.dirichlet([1, 1, 1], INSTANCES))
    return drawn


def measured(seed: int, scale: float = 1.0) -> Measured:
    """What a checkpoint might say, with influences of some size."""
    rng = np.random.default_rng(seed)
    solver = {"method": "task-if", "solver": f"of {seed}", "converged": seed == 0}
    scores = MethodScores(
        task_influence=scale * rng.standard_normal((TASKS, TARGETS)),
        instance_influence=scale * rng.standard_normal(INSTANCES),
        solver=solver,
    )
    return Measured(
        scores=scores,
        self_influence=rng.gamma(2, size=INSTANCES),
        outer_loss=rng.gamma(2, size=TASKS),
        grad_norm=rng.gamma(2, size=TASKS),
        alignment=rng.uniform(-1, 1, TASKS),
        loss=rng.gamma(2, size=INSTANCES),
        labels=LabelEvidence(
            Evidence(*(log_probabilities(rng) for _ in range(3)), rng.gamma(2, size=INSTANCES)),
            Evidence(log_probabilities(rng), log_probabilities(rng)),
        ),
        manifest={
            "seed": seed,
            "evaluation": {"mean_loss": 1.0 + seed, "mean_accuracy": 0.5},
            "solver": solver,
        },
        warnings=["both", f"of {seed}"],
    )


def scaled(one: Measured, factor: float) -> Measured:
    """The same with larger influences."""
    tasks, instances = one.scores.task_influence, one.scores.instance_influence
    larger = {"task_influence": factor * tasks, "instance_influence": factor * instances}
    return replace(one, scores=replace(one.scores, **larger))


def spread(values: np.ndarray) -> np.ndarray:
    """Median absolute deviation over items."""
    deviations = np.abs(values - np.median(values, axis=0))
    result: np.ndarray = np.median(deviations, axis=0)
    return result


def test_influences_are_averaged_by_the_method() -> None:
    small, large = measured(0), measured(1, scale=100)
    found = averaged([small, large])
    expected = averaged_scores("task-if", [small.scores, large.scores])
    np.testing.assert_array_equal(found.scores.task_influence, expected.task_influence)
    np.testing.assert_array_equal(found.scores.instance_influence, expected.instance_influence)


def test_influences_keep_their_sign_and_unit() -> None:
    small = measured(0)
    large = scaled(small, 100)
    found = averaged([small, large]).scores
    # Both say the same; the mean spread is 50.5 times that of the smaller one.
    expected = small.scores
    np.testing.assert_allclose(found.task_influence, 50.5 * expected.task_influence, rtol=1e-12)
    np.testing.assert_allclose(
        found.instance_influence, 50.5 * expected.instance_influence, rtol=1e-12
    )


def test_one_checkpoint_is_itself() -> None:
    one = measured(0)
    assert averaged([one]) is one
    assert influence_spread([one]) is None


def test_probabilities_are_averaged_as_probabilities() -> None:
    each = [measured(seed) for seed in range(3)]
    found = averaged(each)

    def expected(values: Sequence[Floats | None]) -> Floats:
        given = [value for value in values if value is not None]
        assert len(given) == 3
        mean: Floats = np.mean(np.exp(given), axis=0)
        return mean

    for name in ("crossfit", "adapted", "left_out"):
        mean = np.exp(getattr(found.labels.training, name))
        wanted = expected([getattr(one.labels.training, name) for one in each])
        np.testing.assert_allclose(mean, wanted, rtol=1e-9, err_msg=name)
    wanted = expected([one.labels.trusted.crossfit for one in each])
    np.testing.assert_allclose(np.exp(found.labels.trusted.crossfit), wanted, rtol=1e-9)
    assert found.labels.trusted.left_out is None
    assert found.labels.trusted.other is None


@pytest.mark.parametrize("name", ["outer_loss", "grad_norm", "alignment", "loss"])
def test_the_rest_is_averaged_plainly(name: str) -> None:
    each = [measured(seed) for seed in range(2)]
    expected = (getattr(each[0], name) + getattr(each[1], name)) / 2
    np.testing.assert_allclose(getattr(averaged(each), name), expected, rtol=1e-12)


def test_self_influence_is_averaged_at_one_spread() -> None:
    each = [measured(seed) for seed in range(2)]
    first, second = (one.self_influence for one in each)
    assert first is not None and second is not None
    usual = (spread(first) + spread(second)) / 2
    expected = (first / spread(first) + second / spread(second)) / 2 * usual
    found = averaged([each[0], each[1]]).self_influence
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def with_other(seed: int, scale: float) -> Measured:
    """A checkpoint whose signal without a natural scale is so large."""
    rng = np.random.default_rng(seed)
    parts = (rng.standard_normal(5) * scale for _ in range(2))
    one = measured(seed)
    evidence, trusted = (
        replace(given, other=values)
        for given, values in zip((one.labels.training, one.labels.trusted), parts, strict=True)
    )
    return replace(one, labels=LabelEvidence(evidence, trusted))


def test_other_signals_are_averaged_in_units_of_what_is_usual() -> None:
    alike = averaged([with_other(0, 1), with_other(1, 1)])
    unlike = averaged([with_other(0, 1), with_other(1, 100)])
    for one, other in (
        (alike.labels.training, unlike.labels.training),
        (alike.labels.trusted, unlike.labels.trusted),
    ):
        assert one.other is not None and other.other is not None
        np.testing.assert_allclose(other.other, one.other, rtol=1e-12)


def test_what_was_not_asked_for_stays_out() -> None:
    each = [replace(measured(seed), self_influence=None) for seed in range(2)]
    assert averaged(each).self_influence is None


def test_warnings_are_told_once_and_the_manifest_is_mostly_of_the_first() -> None:
    found = averaged([measured(0), measured(1)])
    assert found.warnings == ["both", "of 0", "of 1"]
    assert found.manifest == {
        "seed": 0,
        "evaluation": {"mean_loss": 1.5, "mean_accuracy": 0.5},
        "solver": {"method": "task-if", "solver": "of 0", "converged": False},
    }


def test_the_spread_is_that_of_the_mean_influence_at_one_size() -> None:
    small, large = measured(0), measured(1, scale=100)
    found = influence_spread([small, large])
    assert found is not None
    spreads = [spread(one.scores.task_influence) for one in (small, large)]
    usual = (spreads[0] + spreads[1]) / 2
    means = [
        (one.scores.task_influence / spread * usual).mean(axis=1)
        for one, spread in zip((small, large), spreads, strict=True)
    ]
    np.testing.assert_allclose(found, np.abs(means[0] - means[1]) / np.sqrt(2), rtol=1e-9)


def test_checkpoints_that_agree_have_no_spread() -> None:
    one = measured(0)
    double = scaled(one, 2)
    found = influence_spread([one, double, one])
    assert found is not None
    np.testing.assert_allclose(found, 0, atol=1e-12)
