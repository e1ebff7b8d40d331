"""mini-ImageNet's pickles: as they were published, in newer ones, and damaged."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.errors import TaskSetError
from metaaudit.inputs.images import resized
from metaaudit.inputs.mini_imagenet import mini_imagenet_source
from metaaudit.inputs.tasks import load_tasks
from tests.inputs.pictures import config, used_classes, used_images
from tests.inputs.test_pickles import REFUSED
from tests.written import (
    divided,
    made_up,
    needs_tiny_imagenet,
    tiny_imagenet,
    write_mini_imagenet,
    write_pickle,
)

IMAGES = made_up([f"n{number:03d}" for number in range(10)])
SPLITS = divided(IMAGES, (5, 2, 3))


def asked(root: Path, **changes: Any) -> Any:
    return config("mini-imagenet", root, **changes)


@pytest.mark.parametrize("protocol", [None, 0, 2, 3, 4, 5])
def test_what_was_written_is_read(tmp_path: Path, protocol: int | None) -> None:
    source = mini_imagenet_source(asked(write_mini_imagenet(tmp_path, SPLITS, protocol)))
    assert source.splits == {split: list(images) for split, images in SPLITS.items()}
    assert list(source.classes) == list(IMAGES)
    assert source.classes["n006"] == [f"val/{row}" for row in range(6, 12)]
    assert source.kinds == {}
    ids = list(source.image_ids())
    pixels = source.read(ids)
    assert np.array_equal(pixels, np.concatenate(list(IMAGES.values())).transpose(0, 3, 1, 2))
    chosen = [ids[row] for row in (17, 3, 59, 4)]
    assert np.array_equal(source.read(chosen), pixels[[17, 3, 59, 4]])
    small = mini_imagenet_source(asked(tmp_path, image={"size": 5, "colour": "grey"}))
    assert np.array_equal(small.read(chosen), resized(pixels[[17, 3, 59, 4]], 5, "grey"))


def test_rows_may_be_in_any_order_and_arrays(tmp_path: Path) -> None:
    mixed = np.random.default_rng(0).permutation(60).reshape(10, 6)
    images = np.empty((60, 8, 8, 3), dtype=np.uint8)
    for rows, pixels in zip(mixed, IMAGES.values(), strict=True):
        images[rows] = pixels
    named: dict[str, Any] = dict(zip(IMAGES, mixed, strict=True))
    named["n001"] = [np.int64(row) for row in named["n001"]]
    content = {"image_data": images, "class_dict": named, "catname2label": {"a": 1}}
    write_pickle(tmp_path / "mini-imagenet-cache-train.pkl", content, 4)
    source = mini_imagenet_source(asked(tmp_path))
    for name, pixels in IMAGES.items():
        order = np.argsort(mixed[list(IMAGES).index(name)])
        found = source.read(source.classes[name])
        assert np.array_equal(found, pixels[order].transpose(0, 3, 1, 2))


def test_the_files_that_are_there_are_the_splits(tmp_path: Path) -> None:
    write_mini_imagenet(tmp_path, {"validation": SPLITS["val"], "test": SPLITS["test"]})
    source = mini_imagenet_source(asked(tmp_path))
    assert source.splits == {"val": ["n005", "n006"], "test": ["n007", "n008", "n009"]}
    assert source.classes["n005"][0] == "val/0"
    shutil.copy(
        tmp_path / "mini-imagenet-cache-validation.pkl", tmp_path / "mini-imagenet-cache-val.pkl"
    )
    with pytest.raises(TaskSetError, match=r"has both mini-imagenet-cache-val.pkl and .*n.pkl"):
        mini_imagenet_source(asked(tmp_path))


def test_tasks_are_of_the_splits_and_the_same_anywhere(tmp_path: Path) -> None:
    hashes = set()
    for name, protocol in (("a", None), ("b", 5)):
        root = write_mini_imagenet(tmp_path / name, SPLITS, protocol)
        train, evaluation = load_tasks(asked(root))
        assert used_classes(train) <= set(SPLITS["train"])
        assert used_classes(evaluation) <= set(SPLITS["test"])
        assert all(image_id.startswith("train/") for image_id in used_images(train))
        hashes.add((train.content_hash, evaluation.content_hash))
    assert len(hashes) == 1


def test_only_the_images_of_tasks_are_held(tmp_path: Path) -> None:
    images = made_up([f"n{number}" for number in range(4)], images=500, size=40)
    root = write_mini_imagenet(tmp_path, divided(images, (2, 0, 2)))
    tracemalloc.start()
    train, _ = load_tasks(asked(root))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(train.pool.pixels) <= 30
    assert peak < 1 << 21  # of 10 MB


def changed(**changes: Any) -> Callable[[Path], Any]:
    """Writes the training classes with some keys changed, or without them."""

    def make(path: Path) -> None:
        images = SPLITS["train"]
        rows = {name: list(range(6 * row, 6 * row + 6)) for row, name in enumerate(images)}
        content = {"image_data": np.concatenate(list(images.values())), "class_dict": rows}
        content = {key: value for key, value in (content | changes).items() if value is not None}
        write_pickle(path, content, 4)

    return make


def class_dict(**changes: Any) -> Callable[[Path], Any]:
    rows = {f"n{row:03d}": list(range(6 * row, 6 * row + 6)) for row in range(5)}
    return changed(class_dict=rows | changes)


def images_of(*shape: int, dtype: str = "u1") -> Callable[[Path], Any]:
    return changed(image_data=np.zeros(shape, dtype))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no images": (changed(image_data=None), "image_data: is missing"),
    "no classes": (changed(class_dict=None), "class_dict: is missing"),
    "images as a list": (changed(image_data=[1]), "image_data: is a list of other things"),
    "classes as a list": (changed(class_dict=["n0"]), "class_dict: is a list of other things"),
    "images of floats": (images_of(30, 8, 8, 3, dtype="f4"), r"float32 \[30, 8, 8, 3\]; expected"),
    "channels first": (images_of(30, 3, 8, 8), r"is uint8 \[30, 3, 8, 8\]; expected uint8"),
    "flat images": (images_of(30, 192), r"is uint8 \[30, 192\]"),
    "images without pixels": (images_of(30, 0, 8, 3), r"has the shape \[30, 0, 8, 3\]"),
    "images of four channels": (images_of(30, 8, 8, 4), r"is uint8 \[30, 8, 8, 4\]"),
    "a row that is not there": (class_dict(n000=[0, 30]), r"\['n000'\]: has row 30; expected 0 to"),
    "a negative row": (class_dict(n000=[-1]), "has row -1; expected 0 to 29"),
    "a row in two classes": (class_dict(n001=[5, 7]), r"'n001'\]: has row 5, which 'n000' has too"),
    "a row twice": (class_dict(n000=[0, 0]), r"'n000'\]: has row 0, which 'n000' has too"),
    "rows as floats": (class_dict(n000=[0.0]), r"'n000'\]: is a list of other things"),
    "rows as text": (class_dict(n000="01"), r"'n000'\]: is a str; expected a list of integers"),
    "rows as a table": (class_dict(n000=np.eye(2, dtype=int)), r"an array of int64 \[2, 2\]"),
    "a class that is a number": (changed(class_dict={3: [0]}), "class_dict: has an int as a cl"),
    "a class without a name": (changed(class_dict={"": [0]}), "has a class without a name"),
    "no dictionary": (lambda path: write_pickle(path, [1, 2], 4), "holds a list of other things"),
    "nothing": (lambda path: path.touch(), "ends early"),
    "text": (lambda path: path.write_text("no pickle"), "is damaged or no pickle"),
    "a pickle that runs code": (
        lambda path: path.write_bytes(REFUSED["os.system"][0]),
        "asks to run posix.system",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "part"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_gives_one_line(
    tmp_path: Path, make: Callable[[Path], Any], part: str
) -> None:
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    make(path)
    with pytest.raises(TaskSetError, match=part) as caught:
        mini_imagenet_source(asked(tmp_path))
    message = str(caught.value)
    assert message.startswith(str(path)) and message.isprintable() and len(message) < 400


def test_a_class_is_in_one_split(tmp_path: Path) -> None:
    splits = {"train": SPLITS["train"], "test": {**SPLITS["test"], "n003": IMAGES["n003"]}}
    with pytest.raises(TaskSetError, match=r"cache-test.pkl: has class 'n003', which another spl"):
        mini_imagenet_source(asked(write_mini_imagenet(tmp_path, splits)))


def test_roots_that_hold_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, part in (
        ("missing", "does not exist; expected a folder with mini-imagenet-cache-"),
        ("file", "is a file"),
        ("empty", "holds no mini-ImageNet"),
    ):
        with pytest.raises(TaskSetError, match=f"{name}: {part}"):
            mini_imagenet_source(asked(tmp_path / name))


def test_a_file_that_becomes_shorter_gives_one_line(tmp_path: Path) -> None:
    images = made_up(["a", "b"], images=300, size=20)
    source = mini_imagenet_source(asked(write_mini_imagenet(tmp_path, {"train": images}, 4)))
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(path.read_bytes()[:200_000])
    source.read(["train/0"])
    with pytest.raises(TaskSetError, match=r"train.pkl: cannot be read \(it became shorter\)"):
        source.read(["train/0", "train/599"])
    path.unlink()
    with pytest.raises(TaskSetError, match=r"train.pkl: cannot be read \(No such file"):
        source.read(["train/0"])


@pytest.mark.parametrize("protocol", [None, 4])
def test_flipped_bits_are_refused_or_read(tmp_path: Path, protocol: int | None) -> None:
    write_mini_imagenet(tmp_path, {"train": made_up("ab", images=2, size=2)}, protocol)
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(200):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            source = mini_imagenet_source(asked(tmp_path))
            source.read(list(source.image_ids())[:4])
        except TaskSetError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable()
            outcomes.append(False)
        else:
            outcomes.append(True)
    assert 20 < sum(outcomes) < 180


@needs_tiny_imagenet
def test_real_photographs_in_the_real_size(tmp_path: Path) -> None:
    images = tiny_imagenet(84, 10, 5)
    root = write_mini_imagenet(tmp_path, divided(images, (5, 2, 3)))
    train, evaluation = load_tasks(asked(root))
    assert train.pool.input_shape == evaluation.pool.input_shape == (3, 84, 84)
    name = next(iter(images))
    source = mini_imagenet_source(asked(root))
    assert np.array_equal(source.read(source.classes[name]), images[name].transpose(0, 3, 1, 2))
