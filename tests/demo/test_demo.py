"""The demo: its tasks, its count of what was found, and the whole of it once."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from metaaudit.demo import digit_tasks
from metaaudit.demo.findings import found
from metaaudit.inputs.task_set import SETS, TaskSet
from metaaudit.runs.saved import SavedRun
from metaaudit.training import plant
from tests.small import cli, shell, succeeds

SIZES: dict[str, Any] = {"ways": 5, "shots": 2, "queries": 3, "seed": 0}


@pytest.fixture(scope="module")
def sets() -> tuple[TaskSet, TaskSet]:
    return digit_tasks(n_train=60, n_eval=40, **SIZES)


def classes(task_set: TaskSet) -> list[list[tuple[int, int]]]:
    """``(digit, angle)`` of each class of each task, from its name."""
    pattern = re.compile(r"(\d)\D+(\d+)\D*")
    return [
        [
            (int(match[1]), int(match[2]))
            for match in (pattern.fullmatch(name) for name in task.class_names)
            if match
        ]
        for task in task_set.tasks
    ]


def test_no_two_classes_of_a_task_look_alike(sets: tuple[TaskSet, TaskSet]) -> None:
    for task in classes(sets[0]) + classes(sets[1]):
        digits = [digit for digit, _ in task]
        assert len(task) == len(set(digits)) == 5
        assert not {6, 9} <= set(digits)


def test_training_and_evaluation_share_no_class(sets: tuple[TaskSet, TaskSet]) -> None:
    train, evaluation = ({c for task in classes(part) for c in task} for part in sets)
    assert not train & evaluation
    assert len(train) + len(evaluation) == 40
    for used in (train, evaluation):
        assert {digit for digit, _ in used} == set(range(10))
        assert {angle for _, angle in used} == {0, 90, 180, 270}


def test_labels_follow_the_images(sets: tuple[TaskSet, TaskSet]) -> None:
    from sklearn.datasets import load_digits

    target = load_digits().target
    for part in sets:
        for task, names in zip(part.tasks, classes(part), strict=True):
            for name in SETS:
                for row, label in zip(task.rows(name), task.labels(name), strict=True):
                    _, number, turn = part.pool.ids[row].split("/")
                    assert (target[int(number)], f"rot{names[label][1]}") == (names[label][0], turn)


def test_images_are_digits_turned_by_quarters(sets: tuple[TaskSet, TaskSet]) -> None:
    pool = sets[0].pool
    row = {image_id: i for i, image_id in enumerate(pool.ids)}
    upright = pool.pixels[row["digits/0007/rot0"]]
    assert pool.input_shape == (1, 8, 8)
    assert (pool.pixels.min(), pool.pixels.max()) == (0, 255)
    for quarters, angle in enumerate((0, 90, 180, 270)):
        turned = pool.pixels[row[f"digits/0007/rot{angle}"]]
        np.testing.assert_array_equal(turned, np.rot90(upright, quarters, axes=(1, 2)))


def test_sizes_and_no_image_twice_in_a_task(sets: tuple[TaskSet, TaskSet]) -> None:
    assert (len(sets[0]), len(sets[1])) == (60, 40)
    for part in sets:
        for task in part.tasks:
            assert task.support_y.tolist() == [y for y in range(5) for _ in range(2)]
            assert task.query_y.tolist() == [y for y in range(5) for _ in range(3)]
            assert len({*task.support.tolist(), *task.query.tolist()}) == 25


def test_a_task_depends_on_seed_and_number_alone(sets: tuple[TaskSet, TaskSet]) -> None:
    fewer = digit_tasks(n_train=7, n_eval=3, **SIZES)
    for few, many in zip(fewer, sets, strict=True):
        assert few.content_hash == many.select(range(len(few))).content_hash
    other = digit_tasks(n_train=7, n_eval=3, **{**SIZES, "seed": 1})
    assert other[0].content_hash != fewer[0].content_hash


def test_found_counts_the_planted_errors(sets: tuple[TaskSet, TaskSet]) -> None:
    planted = plant(
        sets[0].select(range(4)), flip_tasks=1, flip_share=0.08, permute_tasks=1, seed=0
    )
    clean = planted.clean
    places = list(clean.instances())
    wrong = [i for i in range(len(places)) if planted.wrong[i]]
    right = [i for i in range(len(places)) if not planted.wrong[i]]
    assert len(wrong) == 2 + 15
    # A ranking that puts one correct label on top and the planted ones after it.
    ranking = [right[0], *wrong, *right[1:]]
    flagged = {right[0], *wrong[:3]}
    instances = [
        SimpleNamespace(
            task_id=clean.tasks[places[i][0]].task_id,
            set=places[i][1],
            index=places[i][2],
            mislabeled=i in flagged,
        )
        for i in ranking
    ]
    (permuted,) = planted.permuted
    order = [row for row in range(4) if row != permuted] + [permuted]  # least harmful
    ranked = [
        SimpleNamespace(
            task_id=clean.tasks[row].task_id,
            kinds="noisy contradictory" if row in (permuted, order[0]) else "noisy",
        )
        for row in order
    ]
    run = cast(SavedRun, SimpleNamespace(tasks=ranked, instances=instances))
    lines = found(run, planted)
    assert "17 most suspicious instances: 16 of 17 (chance: 3)" in lines[0]
    assert "among the 4 flagged instances: 3" in lines[1]
    assert "among the 2 flagged as contradictory: 1 of 1" in lines[2]
    assert "1 most harmful by influence: 0 of 1 (chance: 0.2;" in lines[3]


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shown = succeeds(shell("demo", folder)).stdout
    report = folder / "report.html"
    assert shown.splitlines()[-1] == f"report: {report.resolve()}"
    assert {path.name for path in (folder / "run").iterdir()} >= {"tasks.csv", "instances.csv"}
    assert "data:image/png" in report.read_text(encoding="utf-8")

    with (folder / "planted.csv").open(newline="") as file:
        kinds = [line["kind"] for line in csv.DictReader(file)]
    # A tenth of 50 labels in 30 tasks, and the 25 query labels of 6 permuted tasks.
    assert (kinds.count("corrupted"), kinds.count("permuted")) == (150, 150)
    numbers = re.search(r"300 most suspicious instances: (\d+) of 300 \(chance: 15\)", shown)
    assert numbers
    assert int(numbers[1]) > 150
    contradictory = re.search(r"(\d+) flagged as contradictory: (\d) of 6", shown)
    assert contradictory
    assert int(contradictory[2]) >= 4
    assert int(contradictory[1]) <= int(contradictory[2]) + 1

    refused = cli("demo", folder)
    assert refused.exit_code == 2
    assert "use --overwrite" in refused.error
