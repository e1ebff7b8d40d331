"""Images in folders by class: layouts, sizes, colours, and Tiny ImageNet's where it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metaaudit.config.tasks import ImageFolderConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.image_folder import image_folder_source
from metaaudit.inputs.tasks import load_tasks
from tests.inputs.pictures import (
    DATA,
    Files,
    as_folder,
    as_zip,
    config,
    encoded,
    pictures,
    used_classes,
)

TINY = DATA / "tiny-imagenet" / "tiny-imagenet-100.zip"
needs_tiny = pytest.mark.skipif(
    not TINY.is_file(), reason=f"no Tiny ImageNet at {TINY} (set METAAUDIT_DATA)"
)

CLASSES = ("cat", "dog", "emu", "fox")
SPLIT = [f"train/{name}" for name in CLASSES[:2]] + [f"test/{name}" for name in CLASSES[2:]]


def asked(root: Path, **changes: Any) -> ImageFolderConfig:
    found = config("image-folder", root, **changes)
    assert isinstance(found, ImageFolderConfig)
    return found


def moved(files: Files, start: str) -> Files:
    return {name: data for name, data in files.items() if name.startswith(start)}


def test_every_layout_with_splits_gives_the_same_tasks(tmp_path: Path) -> None:
    files = pictures(SPLIT)
    as_zip(tmp_path / "zips" / "1.zip", moved(files, "train"), "")
    as_zip(tmp_path / "zips" / "2.zip", moved(files, "test"), "")
    as_zip(tmp_path / "mixed" / "1.zip", moved(files, "train"), "")
    junk = {"__MACOSX/x/y/z.png": b"?", "train/cat/.hidden.png": b"?", "classes.csv": b"a,b"}
    roots = [
        as_folder(tmp_path / "direct", files | junk),
        as_folder(tmp_path / "wrapped" / "data" / "v1", files).parents[1],
        as_zip(tmp_path / "one.zip", dict(reversed(files.items())), ""),
        as_zip(tmp_path / "wrapped.zip", files | junk, "tiny/"),
        tmp_path / "zips",
        as_folder(tmp_path / "mixed", moved(files, "test")),
    ]
    expected = [side.content_hash for side in load_tasks(asked(roots[0]))]
    for root in roots[1:]:
        assert [side.content_hash for side in load_tasks(asked(root))] == expected, root
    of = image_folder_source(asked(roots[0]))
    assert of.splits == {"test": ["emu", "fox"], "train": ["cat", "dog"]}
    assert of.classes["cat"] == [f"train/cat/{n}.png" for n in range(4)]


@pytest.mark.parametrize("prefix", ["", "data/", "train/", "a/b/c/"])
def test_folders_without_splits(tmp_path: Path, prefix: str) -> None:
    root = as_zip(tmp_path / "a.zip", pictures(CLASSES), prefix)
    of = image_folder_source(asked(root))
    assert of.splits == {}
    assert dict(of.classes) == {n: [f"{n}/{row}.png" for row in range(4)] for n in CLASSES}
    train, evaluation = load_tasks(asked(root, train={"classes": 2}))
    assert used_classes(train) | used_classes(evaluation) == set(CLASSES)


def test_a_class_in_two_splits(tmp_path: Path) -> None:
    root = as_folder(tmp_path / "set", pictures([*SPLIT, "test/cat"]))
    with pytest.raises(TaskSetError, match="class 'cat' is in the splits 'test' and 'train'"):
        load_tasks(asked(root))
    # All images of a class, where classes are divided otherwise.
    assert len(image_folder_source(asked(root)).classes["cat"]) == 8
    (tmp_path / "s.csv").write_text("class,split\ncat,a\nemu,a\ndog,b\nfox,b\n")
    named = {"train": {"split": "a"}, "eval": {"split": "b"}, "splits": tmp_path / "s.csv"}
    train, evaluation = load_tasks(asked(root, **named))
    assert (used_classes(train), used_classes(evaluation)) == ({"cat", "emu"}, {"dog", "fox"})


def jpeg(pixels: Any) -> bytes:
    return encoded(pixels, "JPEG")


def test_kinds_of_files_and_colours(tmp_path: Path) -> None:
    grey = np.full((8, 8), 100, dtype=np.uint8)
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 200
    files = {"a/1.PNG": encoded(red), "a/2.jpg": jpeg(red), "b/1.bmp": encoded(red, "BMP")}
    files |= {"b/2.JPEG": jpeg(grey), "b/note.txt": b"?", "a/3.gif": b"?"}
    root = as_folder(tmp_path, files)
    ids = ["a/1.PNG", "a/2.jpg", "b/1.bmp", "b/2.JPEG"]
    of = image_folder_source(asked(root))
    assert [*of.classes["a"], *of.classes["b"]] == ids
    coloured = of.read(ids)
    assert coloured.shape == (4, 3, 8, 8)
    assert coloured[0, :, 0, 0].tolist() == coloured[2, :, 0, 0].tolist() == [200, 0, 0]
    assert np.abs(coloured[1].astype(int) - coloured[0]).max() < 4  # JPEG loses a little
    assert np.ptp(coloured[3]) == 0
    plain = image_folder_source(asked(root, image={"colour": "grey"})).read(ids)
    assert plain.shape == (4, 1, 8, 8)
    assert plain[0, 0, 0, 0] == round(0.299 * 200)


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    wide = encoded(np.zeros((4, 9, 3), dtype=np.uint8))
    root = as_folder(tmp_path, pictures(CLASSES) | {"dog/wide.png": wide})
    ids = ["cat/0.png", "dog/wide.png"]
    part = r"dog/wide.png: is 9x4, and .*cat/0.png is 6x6; expected one size; set tasks.image.size"
    with pytest.raises(TaskSetError, match=part) as caught:
        image_folder_source(asked(root)).read(ids)
    assert "\n" not in str(caught.value)
    assert image_folder_source(asked(root, image={"size": 5})).read(ids).shape == (2, 3, 5, 5)
    assert image_folder_source(asked(root)).read(ids[1:]).shape == (1, 3, 4, 9)


BAD: dict[str, tuple[Files, str]] = {
    "nothing": ({}, "holds no images; expected split/class/image or class/image"),
    "no classes": (pictures(["."]), "has ./0.png; expected all images as split/class/image"),
    "too deep": (pictures(["a/b/c/d", "e/b/c/d"]), "has a/b/c/d/0.png; expected all images"),
    "stray": (
        pictures(["a/b", "a/c"]) | {"preview.png": b"?"},
        "has a/b/0.png and preview.png, one deeper than the other",
    ),
    "no image": (dict.fromkeys(pictures(SPLIT), b"?"), "png: is no readable image"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_such_folder_gives_one_line(tmp_path: Path, case: str) -> None:
    files, part = BAD[case]
    files = {name.removeprefix("./"): data for name, data in files.items()}
    with pytest.raises(TaskSetError, match=part.replace("./", "")) as caught:
        load_tasks(asked(as_folder(tmp_path, files)))
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_copy_that_differs_is_refused(tmp_path: Path) -> None:
    files = pictures(SPLIT)
    as_zip(tmp_path / "a.zip", dict(zip(files, reversed(files.values()), strict=True)), "")
    with pytest.raises(TaskSetError, match="differs from"):
        load_tasks(asked(as_folder(tmp_path, files)))


@needs_tiny
def test_tiny_imagenet() -> None:
    train, evaluation = load_tasks(asked(TINY, episode={"ways": 5, "shots": 5, "queries": 5}))
    of = image_folder_source(asked(TINY))
    assert {split: len(names) for split, names in of.splits.items()} == {
        "test": 20,
        "train": 64,
        "val": 16,
    }
    assert train.pool.input_shape == (3, 64, 64)
    assert used_classes(train) <= set(of.splits["train"])
    assert used_classes(evaluation) <= set(of.splits["test"])
    values = train.pool.values(train.tasks[0].support)
    assert 0.2 < values.mean() < 0.8


@needs_tiny
def test_tiny_imagenet_as_pillow_decodes_it() -> None:
    import zipfile

    of = image_folder_source(asked(TINY))
    ids = [of.classes[name][0] for name in list(of.classes)[:10]]
    with zipfile.ZipFile(TINY) as archive:
        for image_id, found in zip(ids, of.read(ids), strict=True):
            image = Image.open(io.BytesIO(archive.read(image_id))).convert("RGB")
            assert np.array_equal(found, np.asarray(image).transpose(2, 0, 1))
