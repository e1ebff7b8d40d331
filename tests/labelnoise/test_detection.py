"""From probabilities to flags, end to end on learners that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from metaaudit.config.mislabel import MislabelConfig, Signal
from metaaudit.inputs.task_set import TaskSet
from metaaudit.labelnoise import Evidence, LabelNoise, detect, judge
from metaaudit.labelnoise.detection import signal_values
from tests.labelnoise.made_tasks import given_labels, made_tasks, sure_of

WAYS, QUERIES = 3, 4
SIGNALS: tuple[Signal, ...] = get_args(Signal)

Truth = tuple[list[int], list[int]]

CLEAN: Truth = (list(range(WAYS)) * 4, list(range(WAYS)) * QUERIES)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    normalised: np.ndarray = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return normalised


def said_of(truth: np.ndarray, rng: np.random.Generator) -> Evidence:
    """What a learner says that sees the right classes through noise."""

    def seen(sharpness: float) -> np.ndarray:
        noise = rng.standard_normal((len(truth), WAYS))
        return log_softmax(sharpness * np.eye(WAYS)[truth] + noise)

    crossfit, adapted, left_out = seen(4), seen(3.5), seen(3)
    return Evidence(crossfit, adapted, left_out, rng.gamma(2.0, size=len(truth)))


def planted(
    n_tasks: int, seed: int, noise: float, renamed: Sequence[int] = ()
) -> tuple[TaskSet, Evidence, np.ndarray]:
    """Tasks with wrong labels, what a learner says of them, and which labels are wrong."""
    rng = np.random.default_rng(seed)
    truth = given_labels(made_tasks([CLEAN] * n_tasks))
    wrong = rng.uniform(size=len(truth)) < noise
    labels = np.where(wrong, (truth + rng.integers(1, WAYS, len(truth))) % WAYS, truth)
    n, size = len(CLEAN[0]), sum(map(len, CLEAN))
    given = [(part[:n].tolist(), part[n:].tolist()) for part in labels.reshape(n_tasks, size)]
    for k in renamed:
        given[k] = (given[k][0], [(label + 1) % WAYS for label in given[k][1]])
    return made_tasks(given), said_of(truth, rng), wrong


TRUSTED, TRUSTED_EVIDENCE, _ = planted(60, 99, 0.0)


def found_by(
    task_set: TaskSet, evidence: Evidence, signal: Signal = "crossfit-loss", fdr: float = 0.1
) -> LabelNoise:
    config = MislabelConfig(signal=signal, fdr=fdr)
    return detect(task_set, evidence, TRUSTED, TRUSTED_EVIDENCE, config)


@pytest.mark.parametrize("signal", ["crossfit-loss", "crossfit-margin", "margin", "combined"])
def test_wrong_labels_are_found_at_the_rate_that_was_asked_for(signal: Signal) -> None:
    false, power = [], []
    for seed in range(10):
        task_set, evidence, wrong = planted(60, seed, 0.1)
        found = found_by(task_set, evidence, signal)
        flagged = found.mislabeled
        false.append((flagged & ~wrong).sum() / max(1, flagged.sum()))
        power.append((flagged & wrong).sum() / wrong.sum())
        assert found.wrong.sum() == pytest.approx(wrong.sum(), rel=0.5)
        assert 0 <= found.harder < 1
    assert np.mean(false) <= 0.1 + np.std(false) / np.sqrt(10)
    assert np.mean(power) > 0.5


def test_hardly_any_label_is_flagged_where_all_are_right() -> None:
    flagged = []
    for seed in range(20):
        task_set, evidence, _ = planted(40, seed, 0.0)
        found = found_by(task_set, evidence)
        flagged.append(found.mislabeled.sum())
        assert not (found.noisy_q <= 0.1).any()
        assert not (found.contradictions.q_value <= 0.1).any()
    assert np.mean(np.array(flagged) > 0) <= 0.1


@pytest.fixture(scope="module")
def case() -> tuple[TaskSet, Evidence, np.ndarray]:
    return planted(40, 5, 0.1)


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_signal_gives_scores_in_its_own_order(
    case: tuple[TaskSet, Evidence, np.ndarray], signal: Signal
) -> None:
    task_set, evidence, _ = case
    found = found_by(task_set, evidence, signal)
    for scores in (found.score, found.trusted_score):
        assert scores.min() >= 0
        assert scores.max() <= 1
        assert np.ptp(scores) > 0.5
    order = np.argsort(found.signal)
    assert (np.diff(found.score[order]) >= 0).all()
    assert len(np.unique(found.score)) > 100
    # Probabilities follow the signal, too, and so do q-values where another label is suggested.
    other = judge(evidence.crossfit, task_set).confident
    ranked = order[other[order]]
    assert (np.diff(found.wrong[ranked]) >= 0).all()
    assert (np.diff(found.q_value[ranked]) <= 1e-12).all()
    assert len(found.trusted_score) == TRUSTED.n_instances
    assert np.array_equal(found.mislabeled, found.q_value <= 0.1)


def test_signals_are_what_they_are_called(case: tuple[TaskSet, Evidence, np.ndarray]) -> None:
    task_set, evidence, _ = case
    rows, labels = np.arange(task_set.n_instances), given_labels(task_set)

    def loss(log_p: np.ndarray | None) -> np.ndarray:
        assert log_p is not None
        result: np.ndarray = -log_p[rows, labels]
        return result

    def margin(log_p: np.ndarray) -> np.ndarray:
        others = log_p.copy()
        others[rows, labels] = -np.inf
        result: np.ndarray = others.max(axis=1) - log_p[rows, labels]
        return result

    crossfit, left_out = loss(evidence.crossfit), loss(evidence.left_out)
    expected = {
        "crossfit-loss": crossfit,
        "crossfit-margin": margin(evidence.crossfit),
        "loss": loss(evidence.adapted),
        "margin": margin(evidence.adapted),
        "leave-one-out": left_out,
        "self-influence": evidence.other,
        "own-influence": evidence.other,
        "combined": (crossfit + left_out) / 2,
    }
    assert set(expected) == set(SIGNALS)
    judgement = judge(evidence.crossfit, task_set)
    for signal in SIGNALS:
        values = signal_values(signal, evidence, judgement, task_set)
        np.testing.assert_allclose(values, expected[signal], rtol=1e-9, atol=1e-9, err_msg=signal)


def test_scores_by_hand(case: tuple[TaskSet, Evidence, np.ndarray]) -> None:
    task_set, evidence, _ = case
    p = np.exp(evidence.crossfit)
    given = p[np.arange(len(p)), given_labels(task_set)]
    by_loss = found_by(task_set, evidence)
    np.testing.assert_allclose(by_loss.score, 1 - given, rtol=1e-9, atol=1e-12)
    others = p.copy()
    others[np.arange(len(p)), given_labels(task_set)] = 0
    against = others.max(axis=1) / (others.max(axis=1) + given)
    by_margin = found_by(task_set, evidence, "crossfit-margin")
    np.testing.assert_allclose(by_margin.score, against, rtol=1e-9)
    np.testing.assert_allclose(by_margin.margin, by_margin.signal, rtol=1e-12)
    assert evidence.other is not None and TRUSTED_EVIDENCE.other is not None
    influence, usual = evidence.other.round(1), TRUSTED_EVIDENCE.other.round(1)  # with ties
    by_influence = detect(
        task_set,
        replace(evidence, other=influence),
        TRUSTED,
        replace(TRUSTED_EVIDENCE, other=usual),
        MislabelConfig(signal="own-influence"),
    )
    below = (usual[None] < influence[:, None]).mean(axis=1)
    np.testing.assert_allclose(by_influence.score, below, rtol=1e-12)


def test_a_label_without_a_confident_other_is_not_wrong(
    case: tuple[TaskSet, Evidence, np.ndarray],
) -> None:
    task_set, evidence, _ = case
    found, judgement = found_by(task_set, evidence), judge(evidence.crossfit, task_set)
    assert (found.wrong[judgement.confident] > 0).any()
    assert not found.wrong[~judgement.confident].any()
    assert (found.q_value[~judgement.confident] == 1).all()
    assert np.array_equal(found.suggested, judgement.suggested)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_nothing_is_flagged_that_is_right_for_certain(noise: float) -> None:
    """However surely wrong the others are, which make up for it on average."""
    n_tasks, size = 60, sum(map(len, CLEAN))
    truth = given_labels(made_tasks([CLEAN] * n_tasks))
    labels = truth.copy()
    wrong = np.random.default_rng(0).uniform(size=len(truth)) < noise
    wrong[: len(truth) // 2] = False  # half of the tasks have no wrong label at all
    labels[wrong] = (truth[wrong] + 1) % WAYS
    n = len(CLEAN[0])
    given = [(part[:n].tolist(), part[n:].tolist()) for part in labels.reshape(n_tasks, size)]
    task_set, log_p = made_tasks(given), sure_of(truth, WAYS, 0.99)
    log_p[wrong] = sure_of(truth[wrong], WAYS, 0.995)
    trusted = made_tasks([CLEAN] * 500)
    trusted_log_p = sure_of(given_labels(trusted), WAYS, 0.99)
    found = detect(
        task_set,
        Evidence(log_p, log_p),
        trusted,
        Evidence(trusted_log_p, trusted_log_p),
        MislabelConfig(signal="crossfit-loss"),
    )
    assert found.mislabeled[wrong].all()
    assert not found.wrong[~wrong].any()
    assert not (found.mislabeled & ~wrong).any()
    assert not (found.item_mislabeled & ~wrong).any(), "each image occurs once"
    assert not (found.noisy_q <= 0.1)[found.label_noise == 0].any()


CROSSFIT = MislabelConfig(signal="crossfit-loss")


def test_labels_alike_are_flagged_alike() -> None:
    """Where two labels are equally suspicious, neither comes first."""
    size, place = sum(map(len, CLEAN)), 3

    def one_wrong(sure: Sequence[float]) -> tuple[TaskSet, Evidence]:
        """Tasks with one label that is probably another one, so surely."""
        truth = given_labels(made_tasks([CLEAN] * len(sure)))
        log_p = sure_of(truth, WAYS, 0.8)
        for k, p in enumerate(sure):
            said = (truth[size * k + place] + 1) % WAYS
            log_p[size * k + place] = sure_of(np.array([said]), WAYS, p)[0]
        return made_tasks([CLEAN] * len(sure)), Evidence(log_p, log_p)

    train = one_wrong([0.99] * 10 + [0.95] * 10)
    found = detect(*train, *one_wrong([0.95] * 20 + [0.05] * 80), CROSSFIT)
    doubted = np.arange(len(found.wrong)) % size == place
    surer, surest = found.wrong[doubted][-1], found.wrong[doubted][0]
    assert 0 < surer < surest
    for part in (slice(0, 10), slice(10, 20)):
        for values in (found.wrong, found.q_value, found.item_q):
            assert np.ptp(values[doubted][part]) <= 1e-12
        assert np.ptp(found.noisy_q[part]) <= 1e-12


def test_noisy_tasks_stand_out() -> None:
    task_set, evidence, wrong = planted(40, 0, 0.0)
    noisy, other_evidence, other_wrong = planted(6, 1, 0.4)
    rows = [range(24 * k, 24 * k + 24) for k in range(46)]
    labels = [
        (task.support_y.tolist(), task.query_y.tolist()) for task in (*task_set.tasks, *noisy.tasks)
    ]
    both = Evidence(
        np.concatenate([evidence.crossfit, other_evidence.crossfit]),
        np.concatenate([evidence.adapted, other_evidence.adapted]),
    )
    found = found_by(made_tasks(labels, rows=rows), both)
    assert np.flatnonzero(found.noisy_q <= 0.1).tolist() == list(range(40, 46))
    share = np.concatenate([wrong, other_wrong]).reshape(46, 24).mean(axis=1)
    np.testing.assert_allclose(found.label_noise, share, atol=0.15)


def test_contradictory_tasks_stand_out() -> None:
    task_set, evidence, _ = planted(40, 3, 0.02, renamed=(7, 30))
    found = found_by(task_set, evidence)
    assert np.flatnonzero(found.contradictions.q_value <= 0.1).tolist() == [7, 30]
    assert found.contradictions.ratio[[7, 30]].min() > 10
    assert np.median(found.contradictions.ratio) == 0


def test_contradictions_are_those_of_the_support_and_the_query() -> None:
    """Cross-fitting, which pools the two, does not tell of them."""
    task_set, evidence, _ = planted(40, 3, 0.0, renamed=(7, 30))
    other = planted(40, 4, 0.0)[1]
    before = found_by(task_set, evidence)
    after = found_by(task_set, replace(evidence, crossfit=other.crossfit))
    assert np.array_equal(before.contradictions.ratio, after.contradictions.ratio)
    assert not np.array_equal(before.wrong, after.wrong)
    elsewhere = found_by(task_set, replace(evidence, adapted=other.crossfit))
    assert not np.array_equal(before.contradictions.ratio, elsewhere.contradictions.ratio)
    assert np.array_equal(before.wrong, elsewhere.wrong)


def test_items_pool_their_occurrences(case: tuple[TaskSet, Evidence, np.ndarray]) -> None:
    task_set, evidence, _ = case
    size = sum(map(len, CLEAN))
    labels = [(task.support_y.tolist(), task.query_y.tolist()) for task in task_set.tasks]
    # Every two tasks share their images.
    shared = made_tasks(
        labels, rows=[range(size * (k // 2), size * (k // 2 + 1)) for k in range(len(labels))]
    )
    found = found_by(shared, evidence)
    assert len(found.items) == len(found.item_q) == task_set.n_instances // 2
    for item, q_value, flagged in zip(
        found.items, found.item_q, found.item_mislabeled, strict=True
    ):
        assert len(item.occurrences) == 2
        assert item.score == pytest.approx(found.score[list(item.occurrences)].mean())
        assert item.wrong == pytest.approx(found.wrong[list(item.occurrences)].mean())
        assert flagged == (q_value <= 0.1)
    order = np.lexsort(
        ([-item.score for item in found.items], [-item.wrong for item in found.items])
    )
    assert (np.diff(found.item_q[order]) >= -1e-12).all()


def test_a_stricter_rate_flags_fewer(case: tuple[TaskSet, Evidence, np.ndarray]) -> None:
    task_set, evidence, _ = case
    strict, loose = (found_by(task_set, evidence, fdr=fdr) for fdr in (0.001, 0.25))
    assert np.array_equal(strict.q_value, loose.q_value)
    assert (strict.mislabeled <= loose.mislabeled).all()
    assert strict.mislabeled.sum() < loose.mislabeled.sum()


def test_training_tasks_of_another_size_are_warned_of() -> None:
    task_set, evidence, _ = planted(12, 0, 0.0)
    assert found_by(task_set, evidence).warnings == []
    smaller = made_tasks([(CLEAN[0][:WAYS], CLEAN[1])] * 12)
    said = said_of(given_labels(smaller), np.random.default_rng(0))
    (warning,) = found_by(smaller, said).warnings
    assert "no evaluation task has the size of 12 of the 12 training tasks" in warning


def test_many_noisy_tasks_and_much_less_sure_labels_are_warned_of() -> None:
    task_set, evidence, _ = planted(40, 0, 0.5)
    found = found_by(task_set, evidence)
    assert any("of 40 tasks look noisy" in warning for warning in found.warnings)
    task_set, evidence, _ = planted(40, 0, 0.0)
    flat = replace(evidence, crossfit=log_softmax(evidence.crossfit / 8))
    found = found_by(task_set, flat)
    assert found.harder > 1
    assert not found.mislabeled.any()
    assert any("fit much worse" in warning for warning in found.warnings)
