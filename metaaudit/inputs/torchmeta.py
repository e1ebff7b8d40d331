"""Images by class in the HDF5 files that torchmeta writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from metaaudit.config.tasks import ImageConfig, TorchmetaConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.hdf5_files import DAMAGED, blocks, dataset_inside, group_inside
from metaaudit.inputs.images import CHANNELS, MAX_PIXELS, resized
from metaaudit.inputs.source import ImageSource, Pixels
from metaaudit.inputs.torchmeta_files import Images, Layout, found_layout, read_labels

Parts = tuple[str, ...]

_MOST_COMPRESSED = 2000
"""Times that stored bytes can grow: deflate's limit is 1032. A tiny file can claim any size."""


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
    return ImageSource(
        where=config.root,
        classes={
            name: [f"{name}/{row}" for row in range(found.count)]
            for name, found in sorted(stored.items())
        },
        read=lambda ids: _read(stored, ids, config.image),
        splits=_splits(layout, stored),
    )


@dataclass(frozen=True)
class _Class:
    """A dataset ``[count, height, width]`` or ``[count, height, width, channels]``."""

    images: Images
    parts: Parts
    count: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The name of the class."""
        return "/".join(self.parts[self.images.dropped :])

    @property
    def size(self) -> str:
        """For messages."""
        return f"{self.width}x{self.height}"

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
    where, shape = f"{images.path}: {dataset.name.lstrip('/')}", dataset.shape
    if dataset.dtype != np.uint8:
        raise TaskSetError(where, f"has dtype {dataset.dtype}", "uint8 images")
    fits = shape is not None and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)))
    if not fits or 0 in shape[1:]:
        what = f"has shape {shape}"
        raise TaskSetError(where, what, "[images, height, width], or with 1 or 3 channels after it")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise TaskSetError(where, f"holds images of over {MAX_PIXELS} pixels")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > _MOST_COMPRESSED * stored:
        what = f"claims {shape[0]} images, and {stored} bytes of them are stored"
        raise TaskSetError(where, what, "images that were written")
    return _Class(images, parts, shape[0], shape[1], shape[2])


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


def _read(stored: dict[str, _Class], ids: Sequence[str], image: ImageConfig) -> Pixels:
    """The images' pixels, of which one class is read at a time."""
    wanted: dict[str, list[tuple[int, int]]] = {}
    for place, image_id in enumerate(ids):
        name, _, row = image_id.rpartition("/")
        wanted.setdefault(name, []).append((int(row), place))
    first = stored[next(iter(wanted))]
    for found in (stored[name] for name in wanted):
        if image.size is None and found.size != first.size:
            what = f"holds images of {found.size}, and {first} of {first.size}"
            raise TaskSetError(str(found), what, "one size", "set tasks.image.size")
    shape = (image.size, image.size) if image.size else (first.height, first.width)
    pixels = np.empty((len(ids), CHANNELS[image.colour], *shape), dtype=np.uint8)
    for path in dict.fromkeys(stored[name].images.path for name in wanted):
        with _opened(path) as file:
            for name, pairs in wanted.items():
                if stored[name].images.path == path:
                    rows, places = np.array(sorted(pairs)).T
                    for start, picked in _picked(stored[name], file, rows):
                        stop = start + len(picked)
                        pixels[places[start:stop]] = resized(picked, image.size, image.colour)
    return pixels


def _picked(found: _Class, file: Any, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, Pixels]]:
    """Images of some sorted rows ``[n, channels, height, width]``, and which of them come first."""
    dataset, first = _reopened(found, file), 0
    for block in blocks(dataset):
        low, high = np.searchsorted(rows, [first, first + len(block)])
        if low < high:
            picked = block[rows[low:high] - first]
            picked = picked[..., np.newaxis] if picked.ndim == 3 else picked
            yield int(low), picked.transpose(0, 3, 1, 2)
        first += len(block)


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
