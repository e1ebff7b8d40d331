"""FC100 and CIFAR-FS as pickles, ``FC100_{train,val,test}.pickle``, from MetaOptNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metaaudit.config.tasks import MetaOptNetConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.folders import searched
from metaaudit.inputs.pickles import StoredArray, described, integers, read_pickle
from metaaudit.inputs.source import ImageSource
from metaaudit.inputs.stored_images import check_images, read_images
from metaaudit.inputs.task_set import Ints

_FAMILIES = ("FC100", "CIFAR_FS")
_SPLITS = ("train", "val", "test")
_FILES = "FC100_{train,val,test}.pickle or CIFAR_FS_{train,val,test}.pickle"


def metaoptnet_source(config: MetaOptNetConfig) -> ImageSource:
    """The classes of all files that are there.

    Each holds ``data``, uint8 ``[n, height, width, 3]``, and ``labels``, one an image; other keys
    are ignored.

    Args:
        config: Its ``root`` is the folder of the files.

    Returns:
        Ids are ``<split>/<row>``, the splits ``train``, ``val`` and ``test``, and classes the
        labels; if two splits have a label in common, ``<split>/<label>``.

    Raises:
        TaskSetError: There are no such files, or of both data sets, or one cannot be read or holds
            something else.
    """
    stores: dict[str, tuple[object, StoredArray]] = {}
    labels_of: dict[str, Ints] = {}
    for split, path in _files(config.root).items():
        images, labels_of[split] = _read(path)
        stores[split] = (path, images)
    # As published, labels are those of CIFAR-100 and no two splits share one. Where they do, each
    # split was numbered by itself, and equal labels are not equal classes.
    found = [label for labels in labels_of.values() for label in np.unique(labels).tolist()]
    shared = len(set(found)) < len(found)
    classes: dict[str, list[str]] = {}
    splits: dict[str, list[str]] = {}
    for split, labels in labels_of.items():
        for label in np.unique(labels).tolist():
            name = f"{split}/{label}" if shared else str(label)
            classes[name] = [f"{split}/{row}" for row in np.flatnonzero(labels == label)]
            splits.setdefault(split, []).append(name)
    return ImageSource(
        where=config.root,
        classes=classes,
        read=lambda ids: read_images(stores, ids, config.image),
        splits=splits,
    )


def _files(root: Path) -> dict[str, Path]:
    """The file of each split."""
    families: dict[str, dict[str, Path]] = {}
    with searched(root, f"a folder with {_FILES}"):
        for family in _FAMILIES:
            paths = {split: root / f"{family}_{split}.pickle" for split in _SPLITS}
            found = {split: path for split, path in paths.items() if path.is_file()}
            families.update({family: found} if found else {})
    if not families:
        raise TaskSetError(root, "holds neither data set", _FILES, "check tasks.root")
    if len(families) > 1:
        raise TaskSetError(
            root,
            f"holds {' and '.join(families)}",
            "one of them",
            "move one to a folder of its own and set tasks.root to the one you mean",
        )
    return next(iter(families.values()))


def _read(path: Path) -> tuple[StoredArray, Ints]:
    """The images and the labels of a file."""
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise TaskSetError(path, f"holds {described(content)}", "data and labels")
    images = content.get("data")
    if not isinstance(images, StoredArray):
        raise TaskSetError(f"{path}: data", f"is {described(images)}", "an array")
    check_images(f"{path}: data", images.shape, images.dtype)
    labels = integers(f"{path}: labels", content.get("labels"))
    if len(labels) != len(images):
        raise TaskSetError(
            f"{path}: labels", f"has {len(labels)} labels", f"{len(images)}, one an image"
        )
    return images, labels
