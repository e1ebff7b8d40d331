"""How classes and images are divided, and that no division lets training into evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metaaudit.errors import TaskSetError
from metaaudit.inputs.source import ImageSource
from metaaudit.inputs.splits import divide
from tests.inputs.pictures import config, source

NAMES = [f"c{number}" for number in range(10)]
SPLITS = {"train": NAMES[:5], "val": NAMES[5:7], "test": NAMES[7:]}
OTHER = {"background": NAMES[:6], "evaluation": NAMES[6:]}

Sides = tuple[set[str], set[str]]


def divided(of: ImageSource, **changes: Any) -> Sides:
    train, evaluation = divide(of, config(**changes))
    return set(train.classes), set(evaluation.classes)


def split(*names: str) -> set[str]:
    return {name for one in names for name in SPLITS[one]}


BY_NAME: list[tuple[dict[str, Any], Sides]] = [
    ({}, (split("train"), split("test"))),
    ({"train": {"split": "val"}}, (split("val"), split("test"))),
    ({"eval": {"split": "val"}}, (split("train"), split("val"))),
    ({"train": {"split": "test"}, "eval": {"split": "train"}}, (split("test"), split("train"))),
]


@pytest.mark.parametrize(("changes", "sides"), BY_NAME)
def test_splits_by_name(changes: dict[str, Any], sides: Sides) -> None:
    assert divided(source(NAMES, SPLITS), **changes) == sides


@pytest.mark.parametrize(
    ("splits", "changes", "of", "rest"),
    [
        ({}, {}, set(NAMES), set(NAMES)),
        (SPLITS, {}, set(NAMES), set(NAMES)),
        (SPLITS, {"train": {"split": "train"}}, split("train"), split("train")),
        (SPLITS, {"eval": {"split": "val"}}, split("train"), None),
        (SPLITS, {"train": {"split": "val"}, "eval": {"split": "test"}}, split("val"), None),
    ],
    ids=["no splits", "all", "within a split", "default split", "named"],
)
def test_a_number_of_classes_is_drawn_by_seed(
    splits: dict[str, list[str]], changes: dict[str, Any], of: set[str], rest: set[str] | None
) -> None:
    seen = set()
    for seed in range(8):
        settings = {**changes, "train": {**changes.get("train", {}), "classes": 2, "seed": seed}}
        train, evaluation = divided(source(NAMES, splits), **settings)
        assert len(train) == 2
        assert train <= of
        assert evaluation == (split(changes["eval"]["split"]) if rest is None else rest - train)
        assert divided(source(NAMES[::-1], splits), **settings) == (train, evaluation)
        seen.add(frozenset(train))
    assert len(seen) > 1 or len(of) == 2


BAD: list[tuple[dict[str, list[str]], dict[str, Any], str]] = [
    ({}, {}, "tasks.train.classes: is missing, and set has no splits"),
    ({}, {"train": {"split": "train"}}, "tasks.train.split: is 'train', and set has no splits"),
    (
        {},
        {"train": {"classes": 2}, "eval": {"split": "test"}},
        "tasks.eval.split: is 'test', and set has no splits",
    ),
    (
        SPLITS,
        {"train": {"split": "tain"}},
        "tasks.train.split: 'tain' is no split of set; expected one of test, train, val; "
        "did you mean 'train'",
    ),
    (SPLITS, {"eval": {"split": "eval"}}, "tasks.eval.split: 'eval' is no split of set"),
    (OTHER, {}, "tasks.train.split: set has no split 'train', which is taken by default; expected"),
    (OTHER, {"eval": {"split": "evaluation"}}, "set has no split 'train'"),
    (OTHER, {"train": {"split": "background"}}, "tasks.eval.split: set has no split 'test'"),
    ({"train": NAMES}, {}, "tasks.eval.split: set has no split 'test'"),
    (SPLITS, {"train": {"split": "test"}}, "'test' has 3 classes that training tasks use"),
    (
        SPLITS,
        {"train": {"split": "val"}, "eval": {"split": "val"}},
        "tasks.eval.split: 'val' has 2 classes that training tasks use, .*, such as 'c5'; .*images",
    ),
    (
        SPLITS,
        {"train": {"split": "val", "classes": 1}, "eval": {"split": "val"}},
        "'val' has 1 classes that training tasks use",
    ),
    (
        {"train": NAMES[:5], "test": NAMES[4:]},
        {},
        "set: class 'c4' is in the splits 'train' and 'test'; expected splits that share no class",
    ),
    ({"train": NAMES[:5], "val": NAMES[4:6], "test": NAMES[6:]}, {}, "'c4' is in the splits"),
    (
        SPLITS,
        {"train": {"classes": 6}, "eval": {"split": "test"}},
        "tasks.train.classes: is 6, and there are 5 classes to draw from; expected at most 5",
    ),
    ({}, {"train": {"classes": 11}, "eval": {"images": 0.5}}, "is 11, and there are 10 classes"),
    ({}, {"train": {"classes": 9}}, "set: holds 10 classes; 9 for training leave 1 for evaluation"),
    (SPLITS, {"train": {"classes": 4, "split": "train"}}, "5 classes; 4 for training leave 1"),
    ({}, {"train": {"classes": 12}}, "12 for training leave 0 for evaluation"),
]


@pytest.mark.parametrize(("splits", "changes", "part"), BAD)
def test_what_cannot_be_divided_gives_one_line(
    splits: dict[str, list[str]], changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(TaskSetError, match=part) as caught:
        divide(source(NAMES, splits), config(**changes))
    assert "\n" not in str(caught.value)


CSV = "class,split,note\n" + "".join(
    f"{name},{'a' if row < 6 else 'b'},x\n" for row, name in enumerate(NAMES[:9])
)


def test_a_file_takes_the_place_of_the_splits(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("\ufeff" + CSV, encoding="utf-8")
    named = {"train": {"split": "a"}, "eval": {"split": "b"}}
    for splits in ({}, SPLITS, {"train": NAMES, "test": NAMES}):
        found = divided(source(NAMES, splits), splits=path, **named)
        assert found == (set(NAMES[:6]), set(NAMES[6:9]))  # c9 is in no split
    with pytest.raises(
        TaskSetError, match=r"'train' is no split of .*splits.csv; expected one of a"
    ):
        divide(source(NAMES, SPLITS), config(splits=path, train={"split": "train"}))
    with pytest.raises(TaskSetError, match=r"tasks.splits: is not used: tasks.train.classes"):
        divide(source(NAMES, SPLITS), config(splits=path, train={"classes": 3}))


BAD_CSV = {
    "c1,a\n": "has the columns c1, a; expected the columns class, split",
    "": "is empty",
    "class,split\n": "has no rows",
    "class,split,split\nc1,a,b\n": "each once",
    "class,split\nc1,a\nc11,b\n": r"csv:3: class 'c11' is not in set; .*did you mean 'c1'",
    "class,split\nc1,a\n\nc1,b\n": r"csv:4: class 'c1' is there twice, as 'a' and as 'b'",
    "class,split\nc1,a\nc1,a\n": r"csv:3: class 'c1' is there twice",
    "class,split\nc1\n": r"csv:2: lacks a value for class or split",
    "class,split\nc1, \n": r"csv:2: lacks a value",
    'class,split\n"c1,a\n': "is no readable CSV",
}


@pytest.mark.parametrize("text", BAD_CSV)
def test_bad_file_gives_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(TaskSetError, match=BAD_CSV[text]) as caught:
        divide(source(NAMES), config(splits=path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"class,split\n\xff,a\n")
    for name, part in {"no.csv": "No such file", "": "directory", "binary.csv": "UTF-8"}.items():
        with pytest.raises(TaskSetError, match=part):
            divide(source(NAMES), config(splits=tmp_path / name))


@pytest.mark.parametrize(
    ("splits", "train", "names"),
    [
        ({}, {}, set(NAMES)),
        ({}, {"classes": 3}, None),
        (SPLITS, {}, split("train")),
        (SPLITS, {"split": "val"}, split("val")),
    ],
    ids=["all", "some", "default split", "named split"],
)
def test_images_of_the_same_classes_are_divided(
    splits: dict[str, list[str]], train: dict[str, Any], names: set[str] | None
) -> None:
    of = source(dict.fromkeys(NAMES, 10), splits)
    seen = set()
    for seed in range(4):
        asked = config(train={**train, "seed": seed}, eval={"images": 0.3, "seed": 5})
        sides = divide(of, asked)
        assert set(sides[0].classes) == set(sides[1].classes)
        assert names is None or set(sides[0].classes) == names
        for name in sides[0].classes:
            first, second = (list(side.classes[name]) for side in sides)
            assert (len(first), len(second)) == (7, 3)
            assert sorted(first + second) == sorted(of.classes[name])
            assert [first, second] == [sorted(first), sorted(second)]
            seen.add((name, *second))
        # The seed of the evaluation tasks says nothing of what is held out for them.
        again = divide(of, config(train={**train, "seed": seed}, eval={"images": 0.3, "seed": 6}))
        assert [side.classes for side in again] == [side.classes for side in sides]
    assert len(seen) > len(sides[0].classes)  # another seed, other images
    held_out = {tuple(i.split("/")[1] for i in ids) for ids in sides[1].classes.values()}
    assert len(held_out) > 1  # another class, others too


def test_classes_that_look_alike_stay_on_one_side() -> None:
    kinds = {"c6": "like c9", "c9": "like c9"}
    of = source(NAMES, kinds=kinds)
    numbers = set()
    for seed in range(20):
        train, evaluation = divided(of, train={"classes": 5, "seed": seed})
        assert not ({"c6", "c9"} & train and {"c6", "c9"} & evaluation)
        numbers.add(len(evaluation))
    assert numbers == {4, 5}
    with pytest.raises(TaskSetError, match="look like one that they use, such as 'c9'"):
        divide(source(NAMES, {"train": NAMES[:8], "test": NAMES[8:]}, kinds), config())
