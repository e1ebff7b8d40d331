"""Omniglot: made-up alphabets in every layout, and the real ones where they are."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.config.tasks import OmniglotConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.omniglot import omniglot_source
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks
from tests.inputs.pictures import (
    DATA,
    Files,
    as_folder,
    as_zip,
    config,
    encoded,
    used_classes,
    used_images,
)

needs_omniglot = pytest.mark.skipif(
    not (DATA / "omniglot").is_dir(),
    reason=f"no Omniglot at {DATA / 'omniglot'} (set METAAUDIT_DATA)",
)


def drawing(rng: np.random.Generator) -> bytes:
    return encoded(rng.integers(0, 2, (21, 21)).astype(bool))


def alphabets(images: int = 4) -> Files:
    rng = np.random.default_rng(0)
    return {
        f"{alphabet}/character{character:02d}/{character:04d}_{drawer:02d}.png": drawing(rng)
        for alphabet in ("Aleph", "Bet")
        for character in range(1, 5)
        for drawer in range(images)
    }


def asked(root: Path, **changes: Any) -> OmniglotConfig:
    settings: dict[str, Any] = {
        "image": {"size": 14},
        "episode": {"ways": 3, "shots": 2, "queries": 1},
        "train": {"tasks": 6, "classes": 5},
        "eval": {"tasks": 3},
    }
    for key, value in changes.items():
        settings[key] = {**settings[key], **value} if key in settings else value
    found = config("omniglot", root, **settings)
    assert isinstance(found, OmniglotConfig)
    return found


def hashes(tasks: tuple[TaskSet, TaskSet]) -> list[str]:
    return [task_set.content_hash for task_set in tasks]


def test_every_layout_gives_the_same_tasks(tmp_path: Path) -> None:
    files = alphabets()
    aleph = {name: data for name, data in files.items() if name.startswith("Aleph")}
    backwards = dict(reversed(files.items()))
    as_zip(tmp_path / "zips" / "1.zip", aleph)
    as_zip(tmp_path / "zips" / "2.zip", backwards, "small2/")
    as_zip(tmp_path / "mixed" / "1.zip", aleph)
    junk = {"__MACOSX/a/b/c.png": b"?", "Aleph/character01/._x.png": b"?", "readme.txt": b"?"}
    roots = [
        as_folder(tmp_path / "direct", files),
        as_folder(tmp_path / "extracted" / "images_background_small1", files).parent,
        as_zip(tmp_path / "one.zip", backwards),
        as_zip(tmp_path / "bare.zip", files | junk, ""),
        tmp_path / "zips",
        as_folder(tmp_path / "mixed", files),
    ]
    expected = hashes(load_tasks(asked(roots[0])))
    for root in roots[1:]:
        assert hashes(load_tasks(asked(root))) == expected, root


def broken_roots(folder: Path) -> dict[str, Path]:
    files = alphabets()
    whole = as_zip(folder / "whole.zip", files).read_bytes()
    (folder / "empty").mkdir()
    (folder / "text.zip").write_text("no zip")
    (folder / "cut.zip").write_bytes(whole[:-100])
    flipped = bytearray(whole)
    flipped[len("small1/Aleph/character01/0001_00.png") + 60] ^= 0xFF
    (folder / "flipped.zip").write_bytes(flipped)
    return {
        "does not exist": folder / "missing",
        "holds no images": folder / "empty",
        "text.zip: is no readable zip": folder / "text.zip",
        "cut.zip: is no readable zip": folder / "cut.zip",
        "flipped.zip: is damaged at small1/Aleph/character01/0001_00.png": folder / "flipped.zip",
        "leads outside": as_zip(folder / "up.zip", files, "../"),
        r"leads outside it \('/abs": as_zip(folder / "abs.zip", files, "/abs/"),
        r"leads outside it \('C:": as_zip(folder / "drive.zip", files, "C:/x/"),
    }


def test_broken_root_gives_one_line(tmp_path: Path) -> None:
    for part, root in broken_roots(tmp_path).items():
        with pytest.raises(TaskSetError, match=part) as caught:
            load_tasks(asked(root, train={"tasks": 50}))
        assert "\n" not in str(caught.value)


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    files = dict.fromkeys(alphabets(), b"no image")
    with pytest.raises(TaskSetError, match=r"character\d\d/\d{4}_\d\d.png: is no readable image"):
        load_tasks(asked(as_folder(tmp_path, files)))


def test_copies_must_be_equal(tmp_path: Path) -> None:
    files = alphabets()
    as_zip(tmp_path / "a.zip", dict(zip(files, reversed(files.values()), strict=True)))
    with pytest.raises(TaskSetError, match="differs from"):
        load_tasks(asked(as_folder(tmp_path, files)))


def test_strokes_are_bright_and_of_the_size(tmp_path: Path) -> None:
    train, _ = load_tasks(asked(as_folder(tmp_path, alphabets())))
    assert train.pool.pixels.shape[1:] == (1, 14, 14)
    assert train.pool.pixels.dtype == np.uint8
    assert train.pool.invert
    stored, _ = load_tasks(asked(tmp_path, image={"size": None, "colour": "rgb"}))
    assert stored.pool.pixels.shape[1:] == (3, 21, 21)


BACKGROUND, EVALUATION = ("images_background", "images_evaluation")


def both(folder: Path) -> dict[str, Path]:
    """The full sets, one alphabet each, in the layouts that there are."""
    parts = {
        BACKGROUND: {name: d for name, d in alphabets().items() if name.startswith("Aleph")},
        EVALUATION: {name: d for name, d in alphabets().items() if name.startswith("Bet")},
    }
    for part, files in parts.items():
        as_zip(folder / "zips" / f"{part}.zip", files, f"{part}/")
        as_zip(folder / "bare" / f"{part}.zip", files, "")
        as_folder(folder / "folders" / part, files)
        as_zip(folder / "downloaded" / "omniglot-py" / f"{part}.zip", files, f"{part}/")
        as_zip(folder / "torchvision" / "omniglot-py" / f"{part}.zip", files, f"{part}/")
        as_folder(folder / "torchvision" / "omniglot-py" / part, files)
    whole = {
        f"{part}/{name}": data for part, files in parts.items() for name, data in files.items()
    }
    as_zip(folder / "one" / "omniglot.zip", whole, "python/")
    names = ("zips", "bare", "folders", "downloaded", "torchvision", "one")
    return {name: folder / name for name in names}


def test_the_full_sets_are_splits(tmp_path: Path) -> None:
    named = {
        "train": {"split": "background", "classes": None},
        "eval": {"split": "evaluation"},
    }
    expected = None
    for name, root in both(tmp_path).items():
        of = omniglot_source(asked(root))
        assert set(of.splits) == {"background", "evaluation"}, name
        assert len(of.splits["background"]) == 4
        sides = load_tasks(asked(root, **named))
        assert [{n.split("/")[0] for n in used_classes(side)} for side in sides] == [
            {"Aleph"},
            {"Bet"},
        ]
        expected = expected or hashes(sides)
        assert hashes(sides) == expected, name
    with pytest.raises(TaskSetError, match=r"no split 'train', .* one of background, evaluation"):
        load_tasks(asked(tmp_path / "zips", train={"classes": None}))


@pytest.mark.parametrize("part", [BACKGROUND, "images_background_small1", EVALUATION])
def test_one_set_has_no_splits(tmp_path: Path, part: str) -> None:
    as_zip(tmp_path / f"{part}.zip", alphabets(), f"{part}/")
    assert omniglot_source(asked(tmp_path)).splits == {}


def test_turned_characters_are_classes_that_may_meet(tmp_path: Path) -> None:
    root = as_folder(tmp_path, alphabets())
    changes = {"train": {"tasks": 80}, "rotations": [90, 180, 270]}
    train, evaluation = load_tasks(asked(root, **changes))
    assert len(used_classes(train)) == 20
    upright = [{n.partition("@")[0] for n in used_classes(side)} for side in (train, evaluation)]
    assert not upright[0] & upright[1]
    meetings = [[n.partition("@")[0] for n in task.class_names] for task in train.tasks]
    assert any(len(set(names)) < 3 for names in meetings)
    row = {image_id: row for row, image_id in enumerate(train.pool.ids)}
    turned = [i for i in row if i.endswith("@90") and i.removesuffix("@90") in row]
    assert turned
    for image_id in turned:
        pixels = train.pool.pixels[row[image_id.removesuffix("@90")], 0]
        assert np.array_equal(train.pool.pixels[row[image_id], 0], np.rot90(pixels))


@needs_omniglot
def test_real_omniglot() -> None:
    settings: dict[str, Any] = {
        "episode": {"ways": 5, "shots": 5, "queries": 5},
        "eval": {"tasks": 2},
    }
    both = config("omniglot", DATA / "omniglot", train={"tasks": 3, "classes": 237}, **settings)
    train, evaluation = load_tasks(both)
    assert train.pool.pixels.shape == (150, 1, 28, 28)
    values = train.pool.values(train.tasks[0].support)
    assert 0.02 < values.mean() < 0.2  # bright strokes on black
    assert len(used_classes(evaluation)) == 5
    with pytest.raises(TaskSetError, match="holds 242 classes"):
        load_tasks(config("omniglot", DATA / "omniglot", train={"classes": 238}, **settings))


@needs_omniglot
def test_real_omniglot_extracted(tmp_path: Path) -> None:
    archive = DATA / "omniglot" / "images_background_small1.zip"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path)
    changes = {"train": {"tasks": 2, "classes": 100}, "eval": {"tasks": 2}}
    sides = [load_tasks(asked(root, **changes)) for root in (tmp_path, archive)]
    assert hashes(sides[0]) == hashes(sides[1])
    assert used_images(sides[0][0]) == used_images(sides[1][0])
