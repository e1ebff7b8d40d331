"""Torchmeta's HDF5 files: their images, their splits, and the one line that a broken one gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from metaaudit.config.tasks import TorchmetaConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.tasks import load_tasks
from metaaudit.inputs.torchmeta import torchmeta_source
from tests.written import (
    Images,
    made_up,
    write_torchmeta_cifar,
    write_torchmeta_mini_imagenet,
    write_torchmeta_omniglot,
)

Split = dict[str, Images]

COLOURED: Split = {
    "train": made_up([f"n{row}" for row in range(4)], seed=1),
    "val": made_up(["n4", "n5"], seed=2),
    "test": made_up(["n6", "n7", "n8"], seed=3),
}
STROKES: Split = {
    "train": made_up(["Greek/character01", "Greek/character02"], channels=1, seed=1),
    "val": made_up(["Latin/character01", "Latin/character02"], channels=1, seed=2),
    "test": made_up(["Tengwar/character01", "Tengwar/character02"], channels=1, seed=3),
}
FINE: Split = {
    "train": made_up(["fish/trout", "fish/ray"], seed=1),
    "val": made_up(["trees/oak", "trees/pine"], seed=2),
    "test": made_up(["people/boy", "people/girl"], seed=3),
}


def config(root: Path, **changes: Any) -> TorchmetaConfig:
    return TorchmetaConfig.model_validate(
        {
            "format": "torchmeta",
            "root": root,
            "episode": {"ways": 2, "shots": 2, "queries": 2},
            "train": {"tasks": 3},
            "eval": {"tasks": 2},
        }
        | changes
    )


def merged(splits: Split) -> dict[str, Any]:
    return {name: pixels for images in splits.values() for name, pixels in images.items()}


WRITERS: dict[str, tuple[Callable[..., Path], Split]] = {
    "omniglot": (write_torchmeta_omniglot, STROKES),
    "miniimagenet": (write_torchmeta_mini_imagenet, COLOURED),
    "cifar100": (write_torchmeta_cifar, FINE),
}


@pytest.mark.parametrize(("write", "splits"), WRITERS.values(), ids=WRITERS.keys())
def test_every_image_comes_back(tmp_path: Path, write: Callable[..., Path], splits: Split) -> None:
    grey = splits is STROKES
    image = {"colour": "grey"} if grey else {}
    source = torchmeta_source(config(write(tmp_path, splits), image=image))
    images = merged(splits)
    assert list(source.classes) == sorted(images)
    assert source.splits == {split: sorted(part) for split, part in splits.items()}
    for name, ids in source.classes.items():
        assert ids == [f"{name}/{row}" for row in range(6)]
    ids = list(source.image_ids())[::-2]  # in an order of their own, and not all
    wanted = [images[i.rpartition("/")[0]][int(i.rpartition("/")[2])] for i in ids]
    assert np.array_equal(source.read(ids), np.stack(wanted).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", WRITERS)
def test_tasks_are_sampled_from_the_splits(tmp_path: Path, name: str) -> None:
    write, splits = WRITERS[name]
    image = {"size": 6, "colour": "grey"}
    train, evaluation = load_tasks(config(write(tmp_path, splits), image=image))
    assert train.pool.input_shape == evaluation.pool.input_shape == (1, 6, 6)
    for task_set, split in ((train, "train"), (evaluation, "test")):
        used = {name for task in task_set.tasks for name in task.class_names}
        assert used <= set(splits[split])
    again = write(tmp_path / "elsewhere", splits)
    assert load_tasks(config(again, image=image))[0].content_hash == train.content_hash


def test_large_classes_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_torchmeta_mini_imagenet(tmp_path, COLOURED)
    ids = list(torchmeta_source(config(root)).image_ids())
    whole = torchmeta_source(config(root)).read(ids)
    monkeypatch.setattr("metaaudit.inputs.hdf5_files._BLOCK_BYTES", 2 * 8 * 8 * 3)
    assert np.array_equal(torchmeta_source(config(root)).read(ids[::-1]), whole[::-1])


def test_omniglot_without_the_lists_of_vinyals_has_its_own(tmp_path: Path) -> None:
    root = write_torchmeta_omniglot(tmp_path, STROKES)
    for path in root.glob("vinyals_*"):
        path.unlink()
    splits = torchmeta_source(config(root)).splits
    assert {split: len(names) for split, names in splits.items()} == {"train": 4, "test": 2}


def test_two_benchmarks_of_one_file_are_told_apart_by_the_folder(tmp_path: Path) -> None:
    write_torchmeta_cifar(tmp_path, FINE)
    other = {"train": FINE["val"], "val": FINE["train"], "test": FINE["test"]}
    write_torchmeta_cifar(tmp_path, other, "cifar-fs")
    with pytest.raises(TaskSetError, match="holds labels of fc100 and cifar-fs; expected one"):
        torchmeta_source(config(tmp_path))
    fc100, cifar_fs = (torchmeta_source(config(tmp_path / name)) for name in ("fc100", "cifar-fs"))
    assert fc100.splits["train"] == cifar_fs.splits["val"] == ["fish/ray", "fish/trout"]
    assert fc100.classes == cifar_fs.classes


def test_images_of_two_sizes_need_one_that_is_asked_for(tmp_path: Path) -> None:
    splits = COLOURED | {"test": made_up(["n6", "n7"], size=5)}
    root = write_torchmeta_mini_imagenet(tmp_path, splits)
    ids = ["n0/0", "n6/0"]
    with pytest.raises(TaskSetError, match=r"datasets/n6: holds images of 5x5, and .* of 8x8"):
        torchmeta_source(config(root)).read(ids)
    assert torchmeta_source(config(root, image={"size": 7})).read(ids).shape == (2, 3, 7, 7)


# What is broken


def _labels(file: str, value: Any) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        (root / file).write_text(text, encoding="utf-8")
        return file

    return make


def _replaced(name: str, make: Callable[[Any, str, Path], None]) -> Callable[[Path], str]:
    """With another thing in the place of a dataset of ``data.hdf5`` or ``train_data.hdf5``."""

    def change(root: Path) -> str:
        path = next(root / n for n in ("data.hdf5", "train_data.hdf5") if (root / n).exists())
        with h5py.File(path, "a") as file:
            if name in file:
                del file[name]
            make(file, name, root)
        return path.name

    return change


def _array(array: Any) -> Callable[[Any, str, Path], None]:
    return lambda file, name, root: file.create_dataset(name, data=array)


def _link(link: Any) -> Callable[[Any, str, Path], None]:
    def make(file: Any, name: str, root: Path) -> None:
        with h5py.File(root / "other.hdf5", "w") as other:
            other["images"] = np.zeros((6, 8, 8, 3), np.uint8)
        file[name] = link

    return make


def _virtual(file: Any, name: str, root: Path) -> None:
    with h5py.File(root / "other.hdf5", "w") as other:
        other["images"] = np.zeros((6, 8, 8, 3), np.uint8)
    layout = h5py.VirtualLayout((6, 8, 8, 3), "u1")
    layout[...] = h5py.VirtualSource(root / "other.hdf5", "images", (6, 8, 8, 3))
    file.create_virtual_dataset(name, layout)


def _outside(file: Any, name: str, root: Path) -> None:
    (root / "raw.bin").write_bytes(bytes(6 * 8 * 8 * 3))
    external = [(str(root / "raw.bin"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(name, (6, 8, 8, 3), "u1", external=external)


def _claimed(file: Any, name: str, root: Path) -> None:
    file.create_dataset(name, (10**6, 8, 8, 3), "u1", chunks=(1, 8, 8, 3))


def _encoded(file: Any, name: str, root: Path) -> None:
    dataset = file.create_dataset(name, (2,), h5py.special_dtype(vlen=np.dtype("u1")))
    dataset[0] = np.arange(5, dtype=np.uint8)


def _half(name: str) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) // 2])
        return name

    return make


def _without(*names: str) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        for name in names:
            (root / name).unlink()
        return names[0].replace("_labels.json", "_data.hdf5")

    return make


def _copied(root: Path) -> str:
    (root / "val_data.hdf5").write_bytes((root / "train_data.hdf5").read_bytes())
    return "val_data.hdf5"


def _both(root: Path) -> str:
    write_torchmeta_cifar(root, FINE)
    return ""


MINI, OMNI, CIFAR = "miniimagenet", "omniglot", "cifar100"
N0, TROUT = "datasets/n0", "fish/trout"
LABELS = "train_labels.json"

BAD: dict[str, tuple[str, Callable[[Path], str], str]] = {
    "text as labels": (MINI, _labels(LABELS, '"n0"'), "holds a str; expected a list"),
    "mapping as labels": (MINI, _labels(LABELS, {"n0": 1}), "holds a dict"),
    "no labels": (MINI, _labels(LABELS, []), "is an empty list"),
    "no JSON": (MINI, _labels(LABELS, "['n0']"), "is no readable JSON"),
    "deep JSON": (MINI, _labels(LABELS, "[" * 100000), "is no readable JSON"),
    "number as label": (MINI, _labels(LABELS, ["n0", 1]), "label 1: is 1; expected text"),
    "lists for texts": (MINI, _labels(LABELS, [["n0"]]), r"label 0: is \['n0'\]; expected text"),
    "label twice": (MINI, _labels(LABELS, ["n0", "n1", "n0"]), "label 2: repeats 'n0'"),
    "unknown label": (MINI, _labels(LABELS, ["n0", "x"]), "label 1: is 'x', which is not in"),
    "parent as label": (MINI, _labels(LABELS, [".."]), r"label 0: is '\.\.'; expected names"),
    "path as label": (MINI, _labels(LABELS, ["../n0"]), r"'\.\./n0'; expected names, and no path"),
    "empty label": (MINI, _labels(LABELS, [""]), "label 0: is ''; expected names"),
    "short label": (
        CIFAR,
        _labels("fc100/train_labels.json", [["fish"]]),
        "label 0: is .*; expected a list of 2 texts",
    ),
    "parent in a label": (
        CIFAR,
        _labels("fc100/train_labels.json", [["fish", ".."]]),
        "label 0: is .*; expected names, and no paths",
    ),
    "null in a label": (
        OMNI,
        _labels("vinyals_val_labels.json", [["images_background", "Latin", None]]),
        "expected a list of 3 texts",
    ),
    "half of data.hdf5": (CIFAR, _half("data.hdf5"), "cannot be read"),
    "half of a split": (MINI, _half("val_data.hdf5"), "cannot be read"),
    "no HDF5": (OMNI, _labels("data.hdf5", "x"), "cannot be read"),
    "soft link": (MINI, _replaced(N0, _link(h5py.SoftLink("/datasets/n1"))), "n0: is a link"),
    "soft link of a group": (CIFAR, _replaced("fish", _link(h5py.SoftLink("/trees"))), "is a link"),
    "external link": (
        CIFAR,
        _replaced(TROUT, _link(h5py.ExternalLink("other.hdf5", "images"))),
        "fish/trout: is a link",
    ),
    "external link of all": (
        MINI,
        _replaced("datasets", _link(h5py.ExternalLink("other.hdf5", "/"))),
        "datasets: is a link",
    ),
    "virtual dataset": (MINI, _replaced(N0, _virtual), "n0: is stored in another file"),
    "external storage": (CIFAR, _replaced(TROUT, _outside), "trout: is stored in another file"),
    "group for images": (
        MINI,
        _replaced(N0, lambda file, name, root: file.create_group(name)),
        "datasets/n0: is a group; expected a dataset",
    ),
    "images for a group": (
        CIFAR,
        _replaced("fish", _array(np.zeros((6, 8, 8, 3), np.uint8))),
        "fish: is a dataset; expected a group",
    ),
    "no group": (
        MINI,
        _replaced("datasets", lambda file, name, root: None),
        "lacks the group 'datasets'",
    ),
    "empty group": (
        MINI,
        _replaced("datasets", lambda file, name, root: file.create_group(name)),
        "holds no classes",
    ),
    "floats": (MINI, _replaced(N0, _array(np.zeros((6, 8, 8, 3)))), "n0: is float64 "),
    "encoded images": (MINI, _replaced(N0, _encoded), "n0: is object .*; expected uint8"),
    "flat images": (MINI, _replaced(N0, _array(np.zeros((6, 8), np.uint8))), r"is uint8 \[6, 8\]"),
    "scalar": (MINI, _replaced(N0, _array(np.uint8(1))), r"is uint8 \[\]"),
    "null": (MINI, _replaced(N0, _array(h5py.Empty("u1"))), r"is uint8 \[\]"),
    "channels first": (
        MINI,
        _replaced(N0, _array(np.zeros((6, 3, 8, 8), np.uint8))),
        r"is uint8 \[6, 3, 8, 8\]; expected uint8 \[images, height, width\]",
    ),
    "claimed images": (MINI, _replaced(N0, _claimed), "claims 1000000 images, and 0 bytes"),
    "too large": (
        MINI,
        _replaced(N0, _array(np.zeros((1, 4097, 4097), np.uint8))),
        "1 to 16777216 pixels",
    ),
    "class in two files": (MINI, _copied, "holds the class 'n0', as .*train_data.hdf5"),
    "split without labels": (MINI, _without("val_labels.json"), "has no labels beside it"),
    "two data sets": (MINI, _both, "holds data.hdf5 and train_data.hdf5; expected one data set"),
    "two data sets in one file": (OMNI, _both, "holds labels of Omniglot and of fc100"),
}


@pytest.mark.parametrize(("kind", "change", "part"), BAD.values(), ids=BAD.keys())
def test_what_is_broken_gives_one_line(
    tmp_path: Path, kind: str, change: Callable[[Path], str], part: str
) -> None:
    write, splits = WRITERS[kind]
    root = write(tmp_path, splits)
    file = change(root)
    with pytest.raises(TaskSetError, match=part) as caught:
        torchmeta_source(config(root))
    assert str(caught.value).startswith(str(root / file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_flipped_bits_give_other_pixels_or_one_line(tmp_path: Path, kind: str) -> None:
    """HDF5 as torchmeta writes it has no checksums; what can be seen must end with one line."""
    write, splits = WRITERS[kind]
    root = write(tmp_path, splits)
    path = root / ("train_data.hdf5" if kind == MINI else "data.hdf5")
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for place in (*range(0, 400, 8), *rng.integers(0, len(whole), 100).tolist()):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            source = torchmeta_source(config(root, image={"size": 8}))
            source.read(list(source.image_ids()))
        except TaskSetError as error:
            refused += 1
            assert str(error).startswith(str(root))
            assert "\n" not in str(error)
    assert refused


def _unlabelled(root: Path) -> None:
    for path in write_torchmeta_omniglot(root, STROKES).glob("*.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.touch(), "is a file"),
        (lambda root: root.mkdir(), "holds no data.hdf5"),
        (lambda root: write_torchmeta_omniglot(root / "omniglot", STROKES), "its folder omniglot"),
        (
            lambda root: [
                path.unlink() for path in write_torchmeta_omniglot(root, STROKES).glob("*.json")
            ],
            "data.hdf5: has no labels beside it",
        ),
    ],
    ids=["nothing", "a file", "an empty folder", "the folder above", "no labels"],
)
def test_what_is_no_such_folder_gives_one_line(
    tmp_path: Path, make: Callable[[Path], Any], part: str
) -> None:
    root = tmp_path / "data"
    make(root)
    with pytest.raises(TaskSetError, match=part) as caught:
        torchmeta_source(config(root))
    assert str(caught.value).startswith(str(root))
    assert "\n" not in str(caught.value)
