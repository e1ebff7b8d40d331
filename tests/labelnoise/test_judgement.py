"""Losses, margins and confident learning on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from metaaudit.labelnoise import judge
from metaaudit.labelnoise.judgement import confidently_other, suggested_label
from tests.labelnoise.made_tasks import given_labels, made_tasks


def test_loss_margin_and_suggestion_by_hand() -> None:
    task_set = made_tasks([([0, 1, 2], [0]), ([1, 0], [1, 0])])
    probabilities = np.array(
        [
            [0.7, 0.2, 0.1],
            [0.5, 0.4, 0.1],
            [0.1, 0.3, 0.6],
            [0.1, 0.2, 0.7],
            # The second task has two classes: what is said of 2 does not count.
            [0.2, 0.3, 0.5],
            [0.4, 0.2, 0.4],
            [0.3, 0.1, 0.6],
            [0.1, 0.1, 0.8],
        ]
    )
    found = judge(np.log(probabilities), task_set)
    given = [0.7, 0.4, 0.6, 0.1, 0.6, 2 / 3, 0.25, 0.5]
    other = [0.2, 0.5, 0.3, 0.7, 0.4, 1 / 3, 0.75, 0.5]
    np.testing.assert_allclose(found.loss, -np.log(given), rtol=1e-12)
    np.testing.assert_allclose(found.margin, np.log(other) - np.log(given), rtol=1e-12, atol=1e-12)
    assert found.suggested.tolist() == [0, 0, 2, 2, 1, 0, 0, 0]
    # First task: p(0) of those labelled 0 is 0.4 on average, reached by 0.5, and p(2) is 0.6,
    # reached by 0.7. Second: p(0) of those labelled 0 is 7/12, reached by 0.75.
    assert found.confident.tolist() == [False, True, False, True, False, False, True, False]


def test_batches_of_a_labelled_set_are_judged_as_one() -> None:
    """The last instance is of a class that its batch lacks, and only the other batch has."""
    names = ("a", "b", "c")
    task_set = made_tasks([([], [0, 1, 2]), ([], [0, 1, 0])], class_names=[names, names])
    probabilities = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.2, 0.7, 0.1],
            [0.2, 0.2, 0.6],
            [0.6, 0.3, 0.1],
            [0.3, 0.5, 0.2],
            [0.1, 0.2, 0.7],
        ]
    )
    found = judge(np.log(probabilities), task_set)
    np.testing.assert_allclose(found.loss, -np.log([0.8, 0.7, 0.6, 0.6, 0.5, 0.1]), rtol=1e-12)
    assert found.suggested.tolist() == [0, 1, 2, 0, 1, 2]
    # p(2) of those labelled 2 is 0.6, reached by 0.7.
    assert found.confident.tolist() == [False] * 5 + [True]


def test_outputs_that_a_task_lacks_do_not_count() -> None:
    task_set = made_tasks([([0, 1, 2] * 3, [0, 1, 2] * 3)])
    three = np.log(np.random.default_rng(0).dirichlet([1, 1, 1], task_set.n_instances))
    five = np.hstack([three + np.log(0.5), np.full((len(three), 2), np.log(0.25))])
    narrow, wide = judge(three, task_set), judge(five, task_set)
    np.testing.assert_allclose(wide.loss, narrow.loss, rtol=1e-12)
    np.testing.assert_allclose(wide.margin, narrow.margin, rtol=1e-12, atol=1e-12)
    assert narrow.confident.any()
    assert np.array_equal(wide.confident, narrow.confident)
    assert np.array_equal(wide.suggested, narrow.suggested)


def test_classes_need_not_be_the_first_outputs() -> None:
    task_set = made_tasks([([1, 3], [3, 1])])
    probabilities = np.array(
        [[0.4, 0.3, 0.2, 0.1], [0.9, 0.02, 0.06, 0.02], [0.1, 0.6, 0.1, 0.2], [0.0, 0.1, 0.0, 0.9]]
    )
    found = judge(np.log(np.maximum(probabilities, 1e-300)), task_set)
    np.testing.assert_allclose(np.exp(-found.loss), [0.75, 0.5, 0.25, 0.1], rtol=1e-12)
    assert found.suggested.tolist() == [1, 1, 1, 3]


def test_of_two_classes_the_margin_follows_the_loss() -> None:
    task_set = made_tasks([([0, 1], [0, 1, 1, 0])])
    p = np.random.default_rng(0).uniform(size=6)
    found = judge(np.log(np.column_stack([p, 1 - p])), task_set)
    given = np.where(given_labels(task_set) == 0, p, 1 - p)
    np.testing.assert_allclose(found.margin, np.log1p(-given) - np.log(given), rtol=1e-9)
    assert np.array_equal(np.argsort(found.margin), np.argsort(found.loss))


def test_the_only_instance_of_a_class_is_its_own_threshold() -> None:
    task_set = made_tasks([([0, 0, 1], [0, 0])])
    p_of_1 = np.array([0.1, 0.35, 0.3, 0.8, 0.2])
    found = judge(np.log(np.column_stack([1 - p_of_1, p_of_1])), task_set)
    assert found.suggested.tolist() == [0, 0, 0, 1, 0]
    # p(1) of the one labelled 1 is 0.3, reached by 0.8; p(0) of the four labelled 0 is 0.6375 on
    # average, reached by the 0.7 of the one labelled 1.
    assert found.confident.tolist() == [False, False, True, True, False]


def test_a_task_of_one_class_doubts_nothing() -> None:
    task_set = made_tasks([([1, 1], [1])])
    found = judge(np.log(np.full((3, 3), 1 / 3)), task_set)
    assert found.loss.tolist() == [0.0] * 3
    assert found.suggested.tolist() == [1] * 3
    assert not found.confident.any()
    assert (found.margin < 0).all()


def test_tasks_are_judged_apart() -> None:
    labels: tuple[list[int], list[int]] = ([0, 1, 0, 1], [0, 1])
    log_p = np.log(np.random.default_rng(1).dirichlet([1, 1], 18))
    together = judge(log_p, made_tasks([labels] * 3))
    for k, part in enumerate(np.split(log_p, 3)):
        alone = judge(part, made_tasks([labels]))
        for name in ("loss", "margin", "suggested", "confident"):
            assert np.array_equal(getattr(together, name)[6 * k : 6 * k + 6], getattr(alone, name))


def test_a_flagged_label_has_another_suggestion() -> None:
    # 0 is confident (0.40 >= 0.35) but less likely than the given label: no reason to doubt it.
    probabilities = np.array([[0.35, 0.65], [0.40, 0.60], [0.1, 0.9]])
    labels = np.array([0, 1, 1])
    assert confidently_other(probabilities, labels).tolist() == [False, False, False]


def test_confident_learning_on_a_worked_case() -> None:
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],  # 0: confident, right
            [0.7, 0.3, 0.0],
            [0.1, 0.9, 0.0],  # labelled 0, confidently 1
            [0.2, 0.8, 0.0],  # 1
            [0.3, 0.7, 0.0],
            [0.5, 0.5, 0.0],  # 1: not confident of either
        ]
    )
    labels = np.array([0, 0, 0, 1, 1, 1])
    # Thresholds: mean p(0) of those labelled 0 is 0.567, mean p(1) of those labelled 1 is 0.667.
    assert confidently_other(probabilities, labels).tolist() == [False, False, True] + [False] * 3


def test_a_threshold_is_reached_by_its_own_value() -> None:
    probabilities = np.array([[0.25, 0.75], [0.75, 0.25], [0.25, 0.75]])
    assert confidently_other(probabilities, np.array([1, 0, 0])).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("labels", "suggested"), [([0, 1], [1, 1]), ([0, 2], [0, 2]), ([1, 2], [1, 1])]
)
def test_suggestions_are_classes_of_the_task(labels: list[int], suggested: list[int]) -> None:
    probabilities = np.array([[0.3, 0.5, 0.2], [0.1, 0.6, 0.3]])
    assert suggested_label(probabilities, np.array(labels)).tolist() == suggested
