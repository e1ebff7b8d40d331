"""Images pooled over the tasks that they occur in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from metaaudit.labelnoise.items import Item, class_name, pool_items
from tests.labelnoise.made_tasks import made_tasks

NAMES = [("cat", "dog"), ("dog", "owl")]


def pooled(
    suggested: list[int],
    wrong: list[float],
    *,
    names: Sequence[tuple[str, ...]] | None = None,
    scores: list[float] | None = None,
) -> list[Item]:
    """Two tasks of four images: 0 to 3 in the first, and 1, 4, 5 and 1 again in the second."""
    task_set = made_tasks(
        [([0, 1], [0, 1]), ([0, 1], [1, 0])],
        rows=[[0, 1, 2, 3], [1, 4, 5, 1]],
        class_names=names,
    )
    values = scores or [0.0] * 8
    return pool_items(task_set, np.array(suggested), np.array(values), np.array(wrong))


GIVEN = [0, 1, 0, 1, 0, 1, 1, 0]


def test_items_are_pooled_over_tasks_by_image() -> None:
    scores = [0.1, 0.8, 0.3, 0.4, 0.5, 0.6, 0.7, 0.2]
    wrong = [0.0, 0.9, 0.0, 0.2, 0.3, 0.0, 0.0, 0.6]
    found = pooled(GIVEN, wrong, names=NAMES, scores=scores)
    assert [item.instance_id for item in found] == [f"image-{row}" for row in range(6)]
    assert [item.row for item in found] == list(range(6))
    assert [item.occurrences for item in found] == [(0,), (1, 4, 7), (2,), (3,), (5,), (6,)]
    assert found[1].score == pytest.approx(0.5)
    assert found[1].wrong == pytest.approx(0.6)
    assert found[3].score == pytest.approx(0.4)
    assert found[3].wrong == pytest.approx(0.2)


def test_labels_are_classes_of_the_data_set() -> None:
    found = pooled(GIVEN, [0.0] * 8, names=NAMES)
    # Image 1 is 1 in the first task and 0 in the second: a dog in both.
    assert [item.label for item in found] == ["cat", "dog", "cat", "dog", "owl", "owl"]
    assert [item.suggested for item in found] == [item.label for item in found]


def test_without_names_labels_are_numbers_of_the_task() -> None:
    found = pooled(GIVEN, [0.0] * 8)
    assert [item.label for item in found] == ["0", "1 in task-0 | 0 in task-1", *"0111"]


def test_a_class_without_a_name_has_its_number() -> None:
    found = pooled(GIVEN, [0.0] * 8, names=[("cat", ""), ("dog",)])
    assert [item.label for item in found] == ["cat", "1 in task-0 | dog", "cat", *"111"]
    (task,) = made_tasks([([0, 1], [0])], class_names=[("cat", "")]).tasks
    assert [class_name(task, label) for label in (0, 1, 2)] == ["cat", "1", "2"]


def test_several_given_labels_are_all_told_once() -> None:
    found = pooled(GIVEN, [0.0] * 8, names=[("cat", "dog"), ("owl", "cow")])
    assert found[1].label == "dog | owl"


@pytest.mark.parametrize(
    ("wrong", "suggested"),
    [
        ([0.9, 0.3, 0.3], "cat"),
        ([0.4, 0.3, 0.3], "owl"),
        ([0.0, 0.0, 0.0], "owl"),  # two of three, none of them sure
        ([1e-3, 0.0, 0.0], "cat"),
    ],
)
def test_suggestions_vote_by_how_sure_they_are(wrong: list[float], suggested: str) -> None:
    said = GIVEN.copy()
    said[1], said[4], said[7] = 0, 1, 1  # cat in the first task, owl twice in the second
    doubt = [0.0] * 8
    for place, value in zip((1, 4, 7), wrong, strict=True):
        doubt[place] = value
    assert pooled(said, doubt, names=NAMES)[1].suggested == suggested


def test_votes_of_different_tasks_for_one_class_add_up() -> None:
    said = GIVEN.copy()
    said[1], said[4], said[7] = 1, 0, 1  # dog in both tasks, under other numbers; owl once
    doubt = [0.0, 0.3, 0.0, 0.0, 0.3, 0.0, 0.0, 0.5]
    assert pooled(said, doubt, names=NAMES)[1].suggested == "dog"
