"""Images by class in the HDF5 files that torchmeta writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from metaaudit.config.tasks import TorchmetaConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.hdf5_files import DAMAGED, check_written, dataset_inside, group_inside
from metaaudit.inputs.source import ImageSource
from metaaudit.inputs.stored_images import check_images, read_images
from metaaudit.inputs.torchmeta_files import Images, Layout, found_layout, read_labels

Parts = tuple[str, ...]


def torchmeta_source(config: TorchmetaConfig) -> ImageSource:
    """The images of all datasets in torchmeta's files, whose splits are its lists of labels.

    Args:
        config: Its ``root`` is torchmeta's folder ``omniglot``, ``miniimagenet`` or ``cifar100``,
            or, of two benchmarks in the last one, ``cifar100/fc100`` or ``cifar100/cifar-fs``.

    Returns:
        Classes are named ``alphabet/character``, as of ``n01532829``, or ``superclass/class``, and
        ids are ``<class>/<index>``.

    Raises:
        TaskSetError: Files are missing, damaged, ambiguous or lead to other files, a dataset holds
            no images of uint8, or a list names a class that there is not.
    """
    layout = found_layout(config.root)
    stored: dict[str, _Class] = {}
    for images in layout.images:
        for found in _classes(images):
            if found.name in stored:
                what = f"holds the class '{found.name}', as {stored[found.name]} does"
                raise TaskSetError(images.path, what, "each class once")
            stored[found.name] = found
    stores = {name: (found, found) for name, found in stored.items()}
    return ImageSource(
        where=config.root,
        classes={
            name: [f"{name}/{row}" for row in range(found.shape[0])]
            for name, found in sorted(stored.items())
        },
        read=lambda ids: read_images(stores, ids, config.image),
        splits=_splits(layout, stored),
    )


@dataclass(frozen=True)
class _Class:
    """A dataset of images in its file: a ``StoredImages``.

    Attributes:
        images: Where the datasets are.
        parts: Names of the groups down to this one, and its own.
        shape: ``[count, height, width]``, or that and channels.
    """

    images: Images
    parts: Parts
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the class."""
        return "/".join(self.parts[self.images.dropped :])

    def block(self, start: int, stop: int) -> npt.NDArray[Any]:
        """See ``StoredImages.block``."""
        with _opened(self.images.path) as file:
            return np.asarray(_reopened(self, file)[start:stop])

    def __str__(self) -> str:
        return f"{self.images.path}: {'/'.join(filter(None, (self.images.top, *self.parts)))}"


def _classes(images: Images) -> list[_Class]:
    with _opened(images.path) as file:
        if images.top and images.top not in file:
            raise TaskSetError(images.path, f"lacks the group '{images.top}'", "torchmeta's layout")
        top = group_inside(images.path, file, images.top) if images.top else file
        found = list(_datasets(images, top, ()))
    if not found:
        raise TaskSetError(images.path, "holds no classes", "one dataset a class")
    return found


def _datasets(images: Images, group: Any, parts: Parts) -> Iterator[_Class]:
    for name in sorted(group):
        path = (*parts, name)
        if len(path) < images.depth:
            yield from _datasets(images, group_inside(images.path, group, name), path)
        else:
            yield _checked(images, path, dataset_inside(images.path, group, name))


def _checked(images: Images, parts: Parts, dataset: Any) -> _Class:
    where = f"{images.path}: {dataset.name.lstrip('/')}"
    check_images(where, dataset.shape or (), dataset.dtype)
    check_written(where, dataset, "images")
    return _Class(images, parts, dataset.shape)


def _splits(layout: Layout, stored: dict[str, _Class]) -> dict[str, list[str]]:
    by_parts = {found.parts: name for name, found in stored.items()}
    splits = {}
    for split, path in layout.lists.items():
        labels = read_labels(path, layout.images[0].depth)
        for row, label in enumerate(labels):
            if label not in by_parts:
                files = " or ".join(images.path.name for images in layout.images)
                what = f"is {'/'.join(label)!r}, which is not in {files}"
                raise TaskSetError(f"{path}: label {row}", what, "a class that is there")
        splits[split] = sorted(by_parts[label] for label in labels)
    return splits


def _reopened(found: _Class, file: Any) -> Any:
    """The dataset of a class, which must be as it was: the file may have changed since."""
    *groups, name = filter(None, (found.images.top, *found.parts))
    group = file
    for part in groups:
        group = group_inside(found.images.path, group, part)
    dataset = dataset_inside(found.images.path, group, name)
    if _checked(found.images, found.parts, dataset) != found:
        raise TaskSetError(str(found), "changed while it was read")
    return dataset


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DAMAGED as error:
        raise TaskSetError(
            path, f"cannot be read ({error})", "a whole HDF5 file", "write it again"
        ) from None
    except MemoryError:
        raise TaskSetError(path, "holds more than fits into memory") from None
