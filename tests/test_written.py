"""The writers of data sets: what they write is read as what it was."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.inputs.source import ImageSource
from metaaudit.inputs.tasks import SOURCES
from tests.inputs.pictures import config
from tests.written import (
    Images,
    divided,
    made_up,
    needs_tiny_imagenet,
    tiny_imagenet,
    write_idx,
    write_image_csv,
    write_image_folder,
    write_metaoptnet,
    write_mini_imagenet,
    write_torchmeta_cifar,
    write_torchmeta_mini_imagenet,
    write_torchmeta_omniglot,
)

SHARES = (3, 1, 2)


def folders(root: Path, splits: dict[str, Images]) -> Path:
    for split, images in splits.items():
        write_image_folder(root / split, images)
    return root


def csv_files(root: Path, splits: dict[str, Images]) -> Path:
    return write_image_csv(root, splits, ".png")


FLAT = [f"c{number}" for number in range(6)]
NESTED = [f"a{number // 2}/c{number}" for number in range(6)]
NUMBERS = [str(number) for number in range(6)]

WRITERS: dict[str, tuple[str, Callable[..., Path], list[str]]] = {
    "mini-imagenet": ("mini-imagenet", write_mini_imagenet, FLAT),
    "metaoptnet": ("metaoptnet", write_metaoptnet, NUMBERS),
    "torchmeta's mini-imagenet": ("torchmeta", write_torchmeta_mini_imagenet, FLAT),
    "torchmeta's cifar": ("torchmeta", write_torchmeta_cifar, NESTED),
    "torchmeta's omniglot": ("torchmeta", write_torchmeta_omniglot, NESTED),
    "folders": ("image-folder", folders, FLAT),
    "csv files": ("image-csv", csv_files, FLAT),
}


def opened(kind: str, root: Path) -> ImageSource:
    asked: Any = config(kind, root)
    return SOURCES[type(asked)](asked)


def check(source: ImageSource, images: Images) -> None:
    assert sorted(source.classes) == sorted(images)
    for name, pixels in images.items():
        found = source.read(source.classes[name])
        wanted = pixels.transpose(0, 3, 1, 2)
        assert np.array_equal(found, np.broadcast_to(wanted, found.shape))


@pytest.mark.parametrize("name", WRITERS)
def test_splits_are_read_back(tmp_path: Path, name: str) -> None:
    kind, write, classes = WRITERS[name]
    channels = 1 if "omniglot" in name else 3
    images = made_up(classes, channels=channels)
    splits = divided(images, SHARES)
    source = opened(kind, write(tmp_path, splits))
    assert {split: sorted(found) for split, found in source.splits.items()} == {
        split: sorted(found) for split, found in splits.items()
    }
    check(source, images)


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_read_back(tmp_path: Path, compressed: bool) -> None:
    images = made_up("025", channels=1)
    write_idx(tmp_path, images, "some", compressed=compressed)
    check(opened("idx", tmp_path), images)
    for path in tmp_path.iterdir():
        assert (path.suffix == ".gz") == compressed
        if compressed:
            gzip.decompress(path.read_bytes())


def test_the_same_is_written_every_time(tmp_path: Path) -> None:
    splits = divided(made_up(FLAT), SHARES)
    for folder in "ab":
        write_mini_imagenet(tmp_path / folder, splits)
        write_idx(tmp_path / folder, made_up("01", channels=1), compressed=True)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_divided() -> None:
    images = made_up(f"c{number}" for number in range(100))
    splits = divided(images)
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 64,
        "val": 16,
        "test": 20,
    }
    assert [name for found in splits.values() for name in found] == list(images)


@needs_tiny_imagenet
def test_tiny_imagenet_has_classes_of_all_splits() -> None:
    images = tiny_imagenet(8, 100, 1)
    assert len(images) == 100
    assert list(images) == sorted(images)
    assert {pixels.shape for pixels in images.values()} == {(1, 8, 8, 3)}
