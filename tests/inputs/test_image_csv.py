"""Images that CSV files name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.config.tasks import ImageCsvConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.image_csv import image_csv_source
from metaaudit.inputs.images import decode_image
from metaaudit.inputs.tasks import load_tasks
from tests.inputs.pictures import as_folder, config, pictures, used_classes

IMAGES = pictures(["images"], images=16)
CLASSES = ("n01", "n02", "n03", "n04")


def rows(of: range) -> str:
    return "".join(f"{n}.png,{CLASSES[n // 4]}\n" for n in of)


def write(root: Path) -> Path:
    as_folder(root, IMAGES)
    for split, numbers in {"train": range(8), "test": range(8, 16)}.items():
        (root / f"{split}.csv").write_text(f"filename,label\n{rows(numbers)}")
    return root


def asked(root: Path, **changes: Any) -> ImageCsvConfig:
    found = config("image-csv", root, **changes)
    assert isinstance(found, ImageCsvConfig)
    return found


def test_classes_splits_and_pixels(tmp_path: Path) -> None:
    of = image_csv_source(asked(write(tmp_path)))
    assert of.splits == {"test": ["n03", "n04"], "train": ["n01", "n02"]}
    assert of.classes["n02"] == [f"n02/{n}.png" for n in range(4, 8)]
    found = of.read(["n03/9.png", "n01/0.png"])
    for pixels, name in zip(found, ("images/9.png", "images/0.png"), strict=True):
        assert np.array_equal(pixels, decode_image(IMAGES[name], None, "", "rgb"))
    train, evaluation = load_tasks(asked(tmp_path))
    assert (used_classes(train), used_classes(evaluation)) == ({"n01", "n02"}, {"n03", "n04"})


def test_the_order_of_rows_does_not_count(tmp_path: Path) -> None:
    write(tmp_path)
    expected = [side.content_hash for side in load_tasks(asked(tmp_path))]
    lines = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\r\n".join([lines[0], *reversed(lines[1:]), ""]))
    assert [side.content_hash for side in load_tasks(asked(tmp_path))] == expected


def test_images_may_lie_in_folders(tmp_path: Path) -> None:
    as_folder(write(tmp_path), {"images/more/x.png": IMAGES["images/0.png"]})
    path = tmp_path / "train.csv"
    path.write_text(path.read_text() + "./more/x.png,n01\n")
    of = image_csv_source(asked(tmp_path))
    assert np.array_equal(*of.read(["n01/0.png", "n01/more/x.png"]))


def test_a_label_in_two_files(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "val.csv").write_text("filename,label\n0.png,n04\n")
    with pytest.raises(TaskSetError, match=r"val.csv:2: names 0.png, as .*train.csv:2 does"):
        load_tasks(asked(tmp_path))
    as_folder(tmp_path, {"images/x.png": IMAGES["images/0.png"]})
    (tmp_path / "val.csv").write_text("filename,label\nx.png,n04\n")
    with pytest.raises(TaskSetError, match="class 'n04' is in the splits 'test' and 'val'"):
        load_tasks(asked(tmp_path))


BAD = {
    "filename,label\n0.png,n01\n0.png,n01\n": r"train.csv:3: names 0.png, as .*train.csv:2 does",
    "filename,label\n0.png,n01\n./0.png,n02\n": r"train.csv:3: names 0.png, as .*train.csv:2 does",
    "filename,label\n99.png,n01\n": r"train.csv:2: names '99.png', which is not in .*images",
    "filename,label\nmore/../0.png,n01\n": r"train.csv:2: names 'more/../0.png', which leads out",
    "filename,label\n../secret.png,n01\n": r"names '../secret.png', which leads out of .*images",
    "filename,label\n..\\secret.png,n01\n": "which leads out of",
    "filename,label\n/etc/hostname,n01\n": "names '/etc/hostname', which leads out of",
    "filename,label\nC:/x.png,n01\n": "which leads out of",
    "filename,label\n.,n01\n": r"names '.', which is not in",
    f"filename,label\n{'x' * 300}.png,n01\n": "which is not in",
    "file,label\n0.png,n01\n": r"train.csv:1: has the columns file, label; expected the columns",
    "filename,label\n0.png\n": r"train.csv:2: lacks a value for filename or label",
    "filename,label\n": r"train.csv: has no rows",
    "": r"train.csv:1: is empty",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_file_gives_one_line(tmp_path: Path, text: str) -> None:
    as_folder(write(tmp_path), {"secret.png": IMAGES["images/0.png"], "images/more/y": b""})
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(TaskSetError, match=BAD[text]) as caught:
        load_tasks(asked(tmp_path))
    assert str(caught.value).startswith(str(tmp_path / "train.csv"))
    assert "\n" not in str(caught.value)


def test_other_roots_give_one_line(tmp_path: Path) -> None:
    cases = {
        tmp_path / "none": "does not exist; expected a folder with <split>.csv files",
        tmp_path: "has no CSV files; expected <split>.csv files and a folder 'images'",
        as_folder(tmp_path / "csv", {"a.csv": b"x"}): "has no folder 'images'",
        tmp_path / "csv" / "a.csv": "is a file",
    }
    for root, part in cases.items():
        with pytest.raises(TaskSetError, match=part):
            image_csv_source(asked(root))


def test_an_image_that_is_none_is_named(tmp_path: Path) -> None:
    as_folder(write(tmp_path), {f"images/{n}.png": b"no image" for n in range(8)})
    with pytest.raises(TaskSetError, match=r"images/\d.png: is no readable image"):
        load_tasks(asked(tmp_path))
