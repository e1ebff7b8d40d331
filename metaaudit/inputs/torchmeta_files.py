"""What torchmeta writes of a data set: HDF5 files, and the lists of labels of its splits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaaudit.errors import TaskSetError
from metaaudit.inputs.folders import searched

SPLITS = ("train", "val", "test")

_HDF5 = "data.hdf5"
_BENCHMARKS = ("fc100", "cifar-fs")
_EXPECTED = "torchmeta's folder omniglot, miniimagenet or cifar100"


@dataclass(frozen=True)
class Images:
    """Where the images of some classes are.

    Attributes:
        path: The HDF5 file.
        depth: A class is a dataset that is named by so many parts, below ``top``.
        top: The group that holds them; empty: the file itself.
        dropped: How many first parts are no part of a class's name.
    """

    path: Path
    depth: int
    top: str = ""
    dropped: int = 0


@dataclass(frozen=True)
class Layout:
    """The files of a data set.

    Attributes:
        images: Where its images are.
        lists: The list of labels of each split.
    """

    images: tuple[Images, ...]
    lists: Mapping[str, Path]


def found_layout(root: Path) -> Layout:
    """The files in a folder of torchmeta's, told apart by their names.

    Args:
        root: ``omniglot``, whose split is Vinyals' where there is one; ``miniimagenet``;
            ``cifar100``; or one of the folders ``fc100`` and ``cifar-fs`` in it.

    Raises:
        TaskSetError: It is no such folder, files are missing, or it may be one as well as another.
    """
    with searched(root, _EXPECTED):
        one, several = root / _HDF5, {s: root / f"{s}_data.hdf5" for s in SPLITS}
        several = {split: path for split, path in several.items() if path.is_file()}
        if one.is_file() and several:
            first = next(iter(several.values())).name
            raise TaskSetError(root, f"holds {_HDF5} and {first}", "one data set", "move one away")
        if several:
            return _mini_imagenet(root, several)
        if one.is_file():
            benchmarks = [name for name in _BENCHMARKS if _lists(root / name)]
            return _cifar(root, benchmarks) if benchmarks else _omniglot(root)
        if root.name in _BENCHMARKS and (root.parent / _HDF5).is_file():
            return _cifar(root.parent, [root.name])
        inside = [path.name for path in sorted(root.iterdir()) if path.is_dir()]
        likely = [name for name in ("omniglot", "miniimagenet", "cifar100") if name in inside]
        remedy = f"name its folder {' or '.join(likely)}" if likely else "check tasks.root"
        what = f"holds no {_HDF5} and no <split>_data.hdf5"
        raise TaskSetError(root, what, _EXPECTED, remedy)


def read_labels(path: Path, depth: int) -> list[tuple[str, ...]]:
    """The labels of a list: the parts of the name of each class's dataset.

    Args:
        path: The JSON file.
        depth: How many parts a label has; one that is text instead of a list has one.

    Raises:
        TaskSetError: It is no such list, or a label is there twice.
    """
    listed = "text" if depth == 1 else f"a list of {depth} texts"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TaskSetError(path, f"cannot be read ({error.strerror})", "a JSON file") from None
    except (ValueError, RecursionError) as error:
        raise TaskSetError(path, f"is no readable JSON ({error})", "a list of labels") from None
    if not isinstance(found, list) or not found:
        what = "is an empty list" if found == [] else f"holds a {type(found).__name__}"
        raise TaskSetError(path, what, "a list of labels")
    labels: dict[tuple[str, ...], None] = {}
    for row, label in enumerate(found):
        parts = tuple(label) if isinstance(label, list) else (label,)
        where = f"{path}: label {row}"
        if isinstance(label, list) != (depth > 1) or len(parts) != depth or not _texts(parts):
            raise TaskSetError(where, f"is {_shortened(label)}", listed)
        if any(part in ("", ".", "..") or "/" in part for part in parts):
            raise TaskSetError(where, f"is {_shortened(label)}", "names, and no paths")
        if parts in labels:
            raise TaskSetError(where, f"repeats {_shortened(label)}", "each label once")
        labels[parts] = None
    return list(labels)


def _mini_imagenet(root: Path, files: Mapping[str, Path]) -> Layout:
    lists = _lists(root)
    for split, path in files.items():
        if split not in lists:
            raise TaskSetError(path, "has no labels beside it", f"{split}_labels.json")
    images = tuple(Images(path, depth=1, top="datasets") for path in files.values())
    return Layout(images, {split: lists[split] for split in files})


def _omniglot(root: Path) -> Layout:
    # Both are there as a rule, and torchmeta takes the first unless it is told otherwise.
    lists = _lists(root, "vinyals_") or _lists(root)
    if not lists:
        expected = f"vinyals_train_labels.json, train_labels.json or a folder {_BENCHMARKS[0]}"
        raise TaskSetError(root / _HDF5, "has no labels beside it", expected)
    return Layout((Images(root / _HDF5, depth=3, dropped=1),), lists)


def _cifar(root: Path, benchmarks: Sequence[str]) -> Layout:
    if len(benchmarks) > 1:
        raise TaskSetError(
            root,
            f"holds labels of {' and '.join(benchmarks)}",
            "one of them",
            f"set tasks.root to {root / benchmarks[0]} or {root / benchmarks[1]}",
        )
    lists = _lists(root / benchmarks[0])
    if not lists:
        raise TaskSetError(root / benchmarks[0], "holds no labels", "train_labels.json and so on")
    if _lists(root) or _lists(root, "vinyals_"):
        what = f"holds labels of Omniglot and of {benchmarks[0]}"
        raise TaskSetError(root, what, "one data set", "move one away")
    return Layout((Images(root / _HDF5, depth=2),), lists)


def _lists(folder: Path, prefix: str = "") -> dict[str, Path]:
    paths = {split: folder / f"{prefix}{split}_labels.json" for split in SPLITS}
    return {split: path for split, path in paths.items() if path.is_file()}


def _texts(parts: Sequence[object]) -> bool:
    return all(isinstance(part, str) for part in parts)


def _shortened(label: object) -> str:
    text = ascii(label)
    return text if len(text) <= 80 else f"{text[:77]}..."
