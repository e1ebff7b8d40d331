"""Copies, overlap and kinds of tasks, and the rows of items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaaudit.findings import RULES, RuleName
from metaaudit.influence import Outliers
from metaaudit.inputs.contents import image_contents
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.labelnoise import Contradictions, Item, LabelNoise
from metaaudit.task_facts import TaskFacts, item_rows, task_kinds, unexplained

FDR = 0.1


def task_set(rows: list[list[int]], names: list[tuple[str, ...]], seed: int = 0) -> TaskSet:
    """Tasks of two support and two query images, from a pool of 40."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 1, 2, 2), dtype=np.uint8)
    labels = np.array([0, 1])
    tasks = tuple(
        Task(f"task-{k}", np.array(part[:2]), labels, np.array(part[2:]), labels, names[k])
        for k, part in enumerate(rows)
    )
    return TaskSet(ImagePool(pixels, tuple(f"image-{row}" for row in range(40))), tasks)


def facts_of(train: TaskSet, evaluation: TaskSet) -> TaskFacts:
    return TaskFacts.of(train, evaluation, image_contents(train))


def none_of(n_tasks: int, q_values: list[float] | None = None) -> Contradictions:
    """No renaming is likelier, whatever the q-values."""
    q_value = np.ones(n_tasks) if q_values is None else np.array(q_values)
    return Contradictions(np.zeros(n_tasks), q_value, [{} for _ in range(n_tasks)])


TRAIN = task_set(
    [[0, 1, 2, 3], [4, 5, 6, 7], [3, 2, 1, 0], [8, 9, 10, 11]],
    [("cat", "dog"), ("cat", "owl"), ("cow", "owl"), ()],
)


def test_overlap_with_evaluation_tasks_is_counted() -> None:
    # Other names and places of images do not hide that they are the same.
    pool = ImagePool(TRAIN.pool.pixels[::-1], tuple(f"held-out-{row}" for row in range(40)))
    rows = task_set([[39 - 5, 39 - 6, 39 - 8, 39 - 30]], [("owl", "elk")]).tasks
    facts = facts_of(TRAIN, TaskSet(pool, rows))
    assert facts.shared_images == [0, 2, 0, 1]
    assert facts.shared_classes == [(), ("owl",), ("owl",), ()]
    assert facts.duplicates == [("task-2",), (), ("task-0",), ()]
    assert facts.sentences(TRAIN, none_of(4)) == {
        "task-0": ["same images as task-2"],
        "task-1": [
            "1 of its 2 classes are in evaluation tasks too: owl",
            "2 of its 4 images are in evaluation tasks too",
        ],
        "task-2": [
            "same images as task-0",
            "1 of its 2 classes are in evaluation tasks too: owl",
        ],
        "task-3": ["1 of its 4 images are in evaluation tasks too"],
    }


def test_classes_without_a_name_are_not_shared() -> None:
    train = task_set([[0, 1, 2, 3]], [("", "dog")])
    facts = facts_of(train, task_set([[4, 5, 6, 7]], [("", "cat")], seed=1))
    assert facts.shared_classes == [()]
    assert facts.sentences(train, none_of(1)) == {"task-0": []}


def test_other_pixels_are_not_shared_whatever_their_names() -> None:
    same_rows = task_set([[0, 1, 2, 3]], [()], seed=1)
    assert facts_of(TRAIN, same_rows).shared_images == [0, 0, 0, 0]


def test_shared_images_are_warned_of() -> None:
    facts = facts_of(TRAIN, TRAIN)
    (warning,) = facts.warnings(TRAIN)
    assert "16 of the 16 instances of training tasks are in evaluation tasks too" in warning
    other = task_set([[0, 1, 2, 3]], [()], seed=1)
    assert facts_of(TRAIN, other).warnings(TRAIN) == []


@pytest.mark.parametrize(
    ("copies", "told"),
    [
        (1, "same images as task-1"),
        (3, "same images as task-1, task-2, task-3"),
        (5, "same images as task-1, task-2, task-3 and 2 more"),
    ],
)
def test_many_copies_are_cut_short(copies: int, told: str) -> None:
    train = task_set([[0, 1, 2, 3]] * (copies + 1), [()] * (copies + 1))
    facts = facts_of(train, task_set([[4, 5, 6, 7]], [()]))
    assert facts.sentences(train, none_of(copies + 1))["task-0"] == [told]


def test_the_best_renaming_is_told_by_names_of_the_classes() -> None:
    train = task_set([[0, 1, 2, 3], [4, 5, 6, 7]], [("cat", "dog"), ()])
    facts = facts_of(train, task_set([[10, 11, 12, 13]], [()]))
    found = Contradictions(np.array([9.0, 3.0]), np.zeros(2), [{0: 1, 1: 0}, {0: 1, 1: 0}])
    assert facts.sentences(train, found) == {
        "task-0": ["its query labels fit best if one reads cat as dog, dog as cat"],
        "task-1": ["its query labels fit best if one reads 0 as 1, 1 as 0"],
    }


def noise_of(noisy_q: list[float], contradictory_q: list[float]) -> LabelNoise:
    """Knowledge of tasks alone."""
    none = np.zeros(0)
    return LabelNoise(
        signal=none,
        score=none,
        trusted_score=none,
        suggested=none.astype(np.int64),
        margin=none,
        wrong=none,
        q_value=none,
        mislabeled=none.astype(np.bool_),
        harder=0.0,
        warnings=[],
        items=[],
        item_q=none,
        item_mislabeled=none.astype(np.bool_),
        label_noise=np.zeros(len(noisy_q)),
        noisy_q=np.array(noisy_q),
        contradictions=none_of(len(noisy_q), contradictory_q),
    )


@pytest.mark.parametrize(
    ("noisy_q", "contradictory_q", "copies", "odd", "kinds"),
    [
        (1.0, 1.0, (), False, ()),
        (0.1, 1.0, (), False, ("noisy",)),
        (0.11, 0.11, (), False, ()),
        (1.0, 0.02, (), False, ("contradictory",)),
        (1.0, 1.0, ("b",), False, ("duplicate",)),
        (1.0, 1.0, (), True, ("outlier",)),
        # Wrong labels explain a large loss; copies do not.
        (0.01, 1.0, (), True, ("noisy",)),
        (1.0, 0.01, (), True, ("contradictory",)),
        (1.0, 1.0, ("b", "c"), True, ("duplicate", "outlier")),
        (0.01, 0.01, ("b",), True, ("noisy", "contradictory", "duplicate")),
    ],
)
def test_kinds(
    noisy_q: float,
    contradictory_q: float,
    copies: tuple[str, ...],
    odd: bool,
    kinds: tuple[RuleName, ...],
) -> None:
    # The task stands between two that nothing is wrong with.
    noise = noise_of([1.0, noisy_q, 1.0], [1.0, contradictory_q, 1.0])
    outliers = Outliers(np.zeros(3), np.full(3, 0.01), np.array([False, odd, False]))
    left = unexplained(outliers, noise, FDR)
    explained = bool({"noisy", "contradictory"} & set(kinds))
    assert left.q_value.tolist() == [0.01, 1.0 if explained else 0.01, 0.01]
    assert task_kinds(noise, left, [(), copies, ()], FDR) == [(), kinds, ()]
    assert list(kinds) == [rule for rule in RULES if rule in kinds]


def test_rows_of_items() -> None:
    items = [
        Item("image-3", 3, (0, 4), "cat", "dog", 0.7, 0.8),
        Item("image-9", 9, (2,), "owl", "owl", 0.1, 0.0),
    ]
    noise = replace(
        noise_of([1.0], [1.0]),
        items=items,
        item_q=np.array([0.05, 0.6]),
        item_mislabeled=np.array([True, False]),
        mislabeled=np.array([True, False, False, True, False]),
    )
    influence = np.array([1.0, 10.0, 100.0, 1000.0, 10_000.0])
    first, second = item_rows(noise, influence, {3: "c" * 64, 9: "d" * 64})
    assert (first.instance_id, first.label, first.suggested_label) == ("image-3", "cat", "dog")
    assert (first.occurrences, first.flagged, first.mislabeled) == (2, 1, True)
    assert (first.mislabel_score, first.q_value) == (0.7, 0.05)
    assert (first.influence, first.content) == (10_001.0, "c" * 64)
    assert (second.occurrences, second.flagged, second.mislabeled) == (1, 0, False)
    assert (second.influence, second.content) == (100.0, "d" * 64)
    assert first.rank == second.rank == 0
