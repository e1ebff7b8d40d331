"""FC100 and CIFAR-FS as MetaOptNet's pickles, whole and damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.errors import TaskSetError
from metaaudit.inputs.metaoptnet import metaoptnet_source
from metaaudit.inputs.tasks import load_tasks
from tests.inputs.pictures import config, used_classes
from tests.inputs.test_pickles import REFUSED
from tests.written import (
    divided,
    made_up,
    needs_tiny_imagenet,
    tiny_imagenet,
    write_metaoptnet,
    write_pickle,
)

IMAGES = made_up([f"n{number}" for number in range(10)])
SPLITS = divided(IMAGES, (5, 2, 3))


def asked(root: Path, **changes: Any) -> Any:
    return config("metaoptnet", root, **changes)


@pytest.mark.parametrize("family", ["FC100", "CIFAR_FS"])
@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_what_was_written_is_read(tmp_path: Path, family: str, protocol: int | None) -> None:
    source = metaoptnet_source(asked(write_metaoptnet(tmp_path, SPLITS, family, protocol)))
    assert source.splits == {
        "train": ["0", "1", "2", "3", "4"],
        "val": ["5", "6"],
        "test": ["7", "8", "9"],
    }
    assert list(source.classes) == [str(label) for label in range(10)]
    assert source.classes["6"] == [f"val/{row}" for row in range(6, 12)]
    ids = list(source.image_ids())
    everything = np.concatenate(list(IMAGES.values())).transpose(0, 3, 1, 2)
    assert np.array_equal(source.read(ids), everything)
    assert np.array_equal(source.read([ids[40], ids[2]]), everything[[40, 2]])


def test_splits_that_number_their_classes_from_0_share_none(tmp_path: Path) -> None:
    source = metaoptnet_source(asked(write_metaoptnet(tmp_path, SPLITS, from_zero=True)))
    assert source.splits["train"] == ["train/0", "train/1", "train/2", "train/3", "train/4"]
    assert source.splits["val"] == ["val/0", "val/1"]
    assert source.classes["test/2"] == [f"test/{row}" for row in range(12, 18)]
    train, evaluation = load_tasks(asked(tmp_path))
    assert not used_classes(train) & used_classes(evaluation)


def test_labels_in_any_order_and_as_an_array(tmp_path: Path) -> None:
    labels = np.array([9, 3, 9, 3, 3, 11], dtype=np.uint8)
    images = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3)
    content = {"data": images, "labels": labels, "catname2label": {"a": 3}}
    write_pickle(tmp_path / "FC100_test.pickle", content, 4)
    source = metaoptnet_source(asked(tmp_path))
    assert source.classes == {
        "3": ["test/1", "test/3", "test/4"],
        "9": ["test/0", "test/2"],
        "11": ["test/5"],
    }
    assert source.splits == {"test": ["3", "9", "11"]}
    assert np.array_equal(source.read(["test/4"]), images[4:5].transpose(0, 3, 1, 2))


def test_both_data_sets_in_one_folder(tmp_path: Path) -> None:
    write_metaoptnet(tmp_path, SPLITS, "FC100")
    write_metaoptnet(tmp_path, SPLITS, "CIFAR_FS")
    with pytest.raises(TaskSetError, match=r"holds FC100 and CIFAR_FS; expected one of them; mov"):
        metaoptnet_source(asked(tmp_path))


def content(**changes: Any) -> Callable[[Path], Any]:
    whole = {"data": np.zeros((6, 4, 4, 3), np.uint8), "labels": [0, 0, 0, 1, 1, 1]}
    kept = {key: value for key, value in (whole | changes).items() if value is not None}
    return lambda path: write_pickle(path, kept, 4)


def cut(path: Path) -> None:
    content()(path)
    path.write_bytes(path.read_bytes()[:-40])


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no images": (content(data=None), "data: is missing; expected an array"),
    "no labels": (content(labels=None), "labels: is missing; expected a list of integers"),
    "too few labels": (content(labels=[0, 1]), "labels: has 2 labels; expected 6, one an image"),
    "labels as floats": (content(labels=[0.0] * 6), "labels: is a list of other things"),
    "labels as an array of floats": (content(labels=np.zeros(6)), r"an array of float64 \[6\]"),
    "labels as truths": (content(labels=[True] * 6), "labels: is a list of other things"),
    "labels as names": (content(labels=["a"] * 6), "labels: is a list of other things"),
    "a label out of all bounds": (content(labels=[2**70] * 6), "a number that is too large"),
    "images of floats": (content(data=np.zeros((6, 4, 4, 3))), r"float64 \[6, 4, 4, 3\]"),
    "flat images, as CIFAR-100 has them": (
        content(data=np.zeros((6, 3072), np.uint8)),
        r"data: is uint8 \[6, 3072\]",
    ),
    "no image": (content(data=np.zeros((0, 4, 4, 3), np.uint8), labels=[]), r"the shape \[0, 4"),
    "images as objects": (content(data=np.array([None])), "only those of text are read"),
    "a list": (lambda path: write_pickle(path, [], 4), "holds an empty list; expected data"),
    "cut short": (cut, "ends early"),
    "a pickle that runs code": (
        lambda path: path.write_bytes(REFUSED["eval"][0]),
        "asks to run builtins.eval",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "part"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_gives_one_line(
    tmp_path: Path, make: Callable[[Path], Any], part: str
) -> None:
    path = tmp_path / "CIFAR_FS_val.pickle"
    make(path)
    with pytest.raises(TaskSetError, match=part) as caught:
        metaoptnet_source(asked(tmp_path))
    message = str(caught.value)
    assert message.startswith(str(path)) and message.isprintable() and len(message) < 400


def test_roots_that_hold_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, part in (
        ("missing", "does not exist; expected a folder with FC100_"),
        ("file", "is a file"),
        ("empty", "holds neither data set"),
    ):
        with pytest.raises(TaskSetError, match=f"{name}: {part}"):
            metaoptnet_source(asked(tmp_path / name))


@needs_tiny_imagenet
def test_real_photographs_in_the_real_size(tmp_path: Path) -> None:
    images = tiny_imagenet(32, 10, 5)
    root = write_metaoptnet(tmp_path, divided(images, (5, 2, 3)))
    train, evaluation = load_tasks(asked(root, image={"size": 28, "colour": "grey"}))
    assert train.pool.input_shape == evaluation.pool.input_shape == (1, 28, 28)
    source = metaoptnet_source(asked(root))
    last = list(images.values())[-1]
    assert np.array_equal(source.read(source.classes["9"]), last.transpose(0, 3, 1, 2))
