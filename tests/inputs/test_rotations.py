"""Turned images as classes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.errors import TaskSetError
from metaaudit.inputs.rotations import turned
from metaaudit.inputs.sampling import sample_tasks
from metaaudit.inputs.source import ImageSource, Pixels
from metaaudit.inputs.task_set import TaskSet
from tests.inputs.pictures import config, drawn, source, used_classes, used_images

NAMES = [f"c{number}" for number in range(6)]
SPLITS = {"train": NAMES[:3], "test": NAMES[3:]}


def random_source(height: int = 5, width: int = 5, **options: Any) -> ImageSource:
    """Images of random pixels, by the same names as ``source``."""
    made = source(NAMES, **options)
    ids = list(made.image_ids())
    pixels = np.random.default_rng(0).integers(0, 256, (len(ids), 3, height, width), np.uint8)

    def read(wanted: Any) -> Pixels:
        assert len(set(wanted)) == len(wanted)  # an image is decoded once for all its turns
        return np.asarray(pixels[[ids.index(image_id) for image_id in wanted]])

    return ImageSource(made.where, made.classes, read, made.splits, made.kinds)


def test_pixels_are_turned_counter_clockwise() -> None:
    of = random_source()
    images = turned(of, [270, 90, 180])
    asked = ["c1/0@270", "c1/0", "c2/3@90", "c1/0@180"]
    found = images.read(asked)
    one, two = of.read(["c1/0", "c2/3"])
    for image, upright, quarters in zip(found, (one, one, two, one), (3, 0, 1, 2), strict=True):
        for channel, original in zip(image, upright, strict=True):
            assert np.array_equal(channel, np.rot90(original, quarters))
    assert found.dtype == np.uint8
    # The top right corner goes to the top left.
    assert np.array_equal(found[2][:, 0, 0], two[:, 0, -1])


def test_names_ids_and_splits() -> None:
    images = turned(source(["a", "b"], {"train": ["a"], "test": ["b"]}), [180, 90])
    assert list(images.classes) == ["a", "b", "a@90", "b@90", "a@180", "b@180"]
    assert images.classes["b@90"] == [f"b/{row}@90" for row in range(4)]
    assert images.splits == {"train": ["a", "a@90", "a@180"], "test": ["b", "b@90", "b@180"]}
    assert len(images.by_kind()) == 6
    assert turned(images, []) is images


def test_turns_of_a_class_with_a_kind_are_of_that_kind() -> None:
    images = turned(source(["a", "b", "c"], kinds={"a": "a", "b": "x"}), [90])
    assert images.by_kind() == [["a", "a@90"], ["b", "b@90"], ["c"], ["c@90"]]


def base(name: str) -> str:
    return name.partition("@")[0]


DIVIDED: list[dict[str, Any]] = [
    {},
    {"train": {"classes": 2}},
    {"train": {"classes": 2, "split": "train"}, "eval": {"split": "test"}},
]


@pytest.mark.parametrize("changes", DIVIDED)
def test_turned_classes_stay_with_their_class(changes: dict[str, Any]) -> None:
    settings = {"train": {"tasks": 100, **changes.get("train", {})}}
    settings["eval"] = {"tasks": 100, **changes.get("eval", {})}
    sides = sample_tasks(random_source(splits=SPLITS), config(rotations=[90, 180, 270], **settings))
    names = [used_classes(side) for side in sides]
    originals = [{base(name) for name in side} for side in names]
    assert not originals[0] & originals[1]
    for side, all_names, upright in zip(sides, names, originals, strict=True):
        # A class that is counted once has four classes.
        assert all_names == {f"{n}{turn}" for n in upright for turn in ("", "@90", "@180", "@270")}
        assert any(base(a) == base(b) for t in side.tasks for a, b in [t.class_names])
        check_ids(side)
    assert len(originals[0]) == (changes or {"train": {"classes": 3}})["train"]["classes"]


def check_ids(side: TaskSet) -> None:
    """Checks that every image is of the class that its task says, and turned as that is."""
    for task in side.tasks:
        for rows, labels in ((task.support, task.support_y), (task.query, task.query_y)):
            for row, label in zip(rows, labels, strict=True):
                name, _, turn = task.class_names[label].partition("@")
                image_id = side.pool.ids[row]
                assert image_id.startswith(f"{name}/")
                assert image_id.partition("@")[2] == turn


def test_images_set_aside_stay_so_when_they_are_turned() -> None:
    of = source(dict.fromkeys(NAMES, 8))
    settings = {"rotations": [90], "train": {"tasks": 80}, "eval": {"images": 0.5, "tasks": 80}}
    train, evaluation = sample_tasks(of, config(**settings))
    assert used_classes(train) == used_classes(evaluation) == {*NAMES, *(f"{n}@90" for n in NAMES)}
    sides = [{base(image_id) for image_id in used_images(side)} for side in (train, evaluation)]
    assert not sides[0] & sides[1]


def test_the_order_of_the_turns_does_not_count() -> None:
    sides = [
        sample_tasks(source(NAMES, SPLITS), config(rotations=angles))
        for angles in ([90, 180], [180, 90])
    ]
    for one, two in zip(*sides, strict=True):
        assert drawn(one) == drawn(two)
        assert one.content_hash == two.content_hash


def test_what_leaves_too_few_classes_upright_may_be_enough_turned() -> None:
    settings = {"episode": {"ways": 4}, "train": {"classes": 4}}
    with pytest.raises(TaskSetError, match="4 for training leave 2"):
        sample_tasks(source(NAMES), config(**settings))
    _, evaluation = sample_tasks(source(NAMES), config(rotations=[90], **settings))
    assert len(used_classes(evaluation)) == 4


def test_wide_images_take_half_a_turn_only() -> None:
    of = random_source(height=4)
    assert turned(of, [180]).read(["c0/0@180"]).shape == (1, 3, 4, 5)
    with pytest.raises(TaskSetError, match="set: its images are 5x4, and a quarter turn"):
        turned(of, [90]).read(["c0/0", "c0/0@90"])


@pytest.mark.parametrize("names", [["a", "a@90"], ["a@180", "b"]])
def test_names_of_turned_classes_are_refused(names: list[str]) -> None:
    with pytest.raises(TaskSetError, match="is named as a turned one would be"):
        turned(source(names), [90, 180])
    assert list(turned(source(names), [270]).classes)[:2] == names


def test_images_named_as_turned_ones_are_refused() -> None:
    ids = {"a": ["a/0", "a/0@90"]}
    of = ImageSource(Path("set"), ids, source(["a"]).read)
    with pytest.raises(TaskSetError, match="'a/0@90' is named as a turned one would be"):
        turned(of, [90])
