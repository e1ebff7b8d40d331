"""How sure a suspicion is: false-discovery rates by simulation, and exact properties."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from metaaudit.labelnoise import calibrate, harder
from metaaudit.robust import running_rates

FDR, N, N_TRUSTED, SHARE = 0.1, 1000, 500, 0.1

Floats = np.ndarray


def q_values(scores: Floats, wrong: Floats) -> Floats:
    return running_rates(1 - wrong, scores)


def mixtures(shift: float, share: float = SHARE) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Scores, trusted scores and which labels are wrong, for 50 seeds."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        wrong = rng.uniform(size=N) < share
        yield (
            rng.standard_normal(N) + shift * wrong,
            rng.standard_normal(N_TRUSTED),
            wrong,
        )


def test_right_labels_are_hardly_ever_flagged() -> None:
    flagged = np.array(
        [
            (q_values(scores, calibrate(scores, trusted)) <= FDR).sum()
            for scores, trusted, _ in mixtures(0, share=0)
        ]
    )
    # Without wrong labels every flag is false: the rate is the share of seeds with one.
    assert (flagged > 0).mean() <= FDR
    assert flagged.mean() <= N / 1000


@pytest.mark.parametrize(("shift", "power"), [(3.0, 0.4), (4.0, 0.8)])
def test_the_false_discovery_rate_is_kept(shift: float, power: float) -> None:
    false, found = [], []
    for scores, trusted, wrong in mixtures(shift):
        flagged = q_values(scores, calibrate(scores, trusted)) <= FDR
        false.append((flagged & ~wrong).sum() / max(1, flagged.sum()))
        found.append((flagged & wrong).sum() / wrong.sum())
    error = np.std(false) / np.sqrt(len(false))
    assert np.mean(false) <= FDR + error
    assert np.mean(found) >= power


@pytest.mark.parametrize("shift", [3.0, 4.0])
def test_the_number_of_wrong_labels_is_about_right(shift: float) -> None:
    ratios = []
    for scores, trusted, wrong in mixtures(shift):
        found = calibrate(scores, trusted)
        ratios.append(found.sum() / wrong.sum())
        assert 0 <= found.min() <= found.max() <= 1
    assert 0.6 <= np.mean(ratios) <= 1.4


def test_probabilities_are_those_of_wrong_labels() -> None:
    """Of labels said to be wrong with some probability, about that share is wrong."""
    said, true = [], []
    for scores, trusted, wrong in mixtures(3.0):
        said.append(calibrate(scores, trusted))
        true.append(wrong)
    p, wrong = np.concatenate(said), np.concatenate(true)
    for low, high in [(0.0, 0.2), (0.4, 0.8), (0.9, 1.01)]:
        within = (p >= low) & (p < high)
        assert within.sum() > 100
        assert p[within].mean() == pytest.approx(wrong[within].mean(), abs=0.15)


@pytest.fixture(scope="module")
def case() -> tuple[Floats, Floats]:
    scores, trusted, _ = next(mixtures(2.5))
    return scores, trusted


def test_surer_with_a_higher_score(case: tuple[Floats, Floats]) -> None:
    scores, found = case[0], calibrate(*case)
    order = np.argsort(scores)
    assert (np.diff(found[order]) >= 0).all()
    assert (np.diff(q_values(scores, found)[order]) <= 1e-12).all()
    assert len(np.unique(found)) > 3


def test_equal_scores_are_equally_sure() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, 400) + rng.integers(2, 6, 400) * (rng.uniform(size=400) < 0.2)
    found = calibrate(scores, rng.integers(0, 8, 300).astype(float))
    assert len(np.unique(found)) > 2
    for score in np.unique(scores):
        assert len(np.unique(found[scores == score])) == 1


def test_nothing_depends_on_the_order(case: tuple[Floats, Floats]) -> None:
    scores, trusted = case
    shuffled = np.random.default_rng(1).permutation(len(scores))
    before, after = calibrate(scores, trusted), calibrate(scores[shuffled], trusted[::-1])
    np.testing.assert_allclose(after, before[shuffled], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        q_values(scores[shuffled], after), q_values(scores, before)[shuffled], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    "transformed",
    [np.exp, np.arctan, lambda x: 3 * x - 7, lambda x: x**3],
    ids=["exp", "arctan", "linear", "cube"],
)
def test_only_the_order_of_scores_counts(
    case: tuple[Floats, Floats], transformed: Callable[[Floats], Floats]
) -> None:
    before, after = calibrate(*case), calibrate(*(transformed(part) for part in case))
    assert np.array_equal(before, after)


def test_harder_tasks_are_not_taken_for_wrong_labels() -> None:
    """Right labels that all fit less surely than trusted ones."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scores, trusted = rng.standard_normal(N), rng.standard_normal(N_TRUSTED) - 2
        shift = harder(scores, trusted)
        assert shift == pytest.approx(2, abs=0.2)
        assert not (q_values(scores, calibrate(scores, trusted + shift)) <= FDR).any()


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([-1.0, 0, 5], [-2.0, -1, 7], 1.0),  # the medians
        ([-2.0, -1, 7], [-1.0, 0, 5], 0.0),  # easier tasks are compared as they are
        ([-8.0, -6, 5], [-20.0, -15, 5], 0.0),  # of both the learner is certain
        ([-8.0, -2, 5], [-20.0, -15, 5], 1.0),  # no surer than certain
    ],
)
def test_harder_by_hand(ours: list[float], theirs: list[float], expected: float) -> None:
    assert harder(np.array(ours), np.array(theirs)) == expected


def test_the_same_scores_give_the_same(case: tuple[Floats, Floats]) -> None:
    assert np.array_equal(calibrate(*case), calibrate(*case))


@pytest.mark.parametrize("n_trusted", [99, 199, 999])
def test_one_label_beyond_all_trusted_ones_is_not_certain(n_trusted: int) -> None:
    trusted = np.linspace(0, 1, n_trusted)
    scores = np.append(np.linspace(-1, 1, 99), 5.0)
    found = calibrate(scores, trusted)
    # One of 100 scores is as high as that, and so, it is assumed, is one more trusted one.
    p = min(1.0, (1 / (n_trusted + 1)) / (1 / 100))
    assert found[-1] == pytest.approx(1 - p, abs=1e-9)
    assert found[-1] < 1


def test_by_hand() -> None:
    # Above all 7 trusted scores lie 3 of 8, beside the trusted one that is added: the label there
    # is right with (1/8) / (3/8).
    scores = np.array([0.0, 0.5, 1.5, 3.5, 4.5, 9, 9, 10])
    found = calibrate(scores, np.arange(1.0, 8.0))
    np.testing.assert_allclose(found, [0] * 5 + [2 / 3] * 3, atol=1e-12)
    np.testing.assert_allclose(q_values(scores, found), [1] * 5 + [1 / 3] * 3, atol=1e-12)
