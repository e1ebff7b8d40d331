"""Pairs of idx files, as MNIST has them: images and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from metaaudit.config.tasks import IdxConfig, ImageConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.idx_files import IdxFile
from metaaudit.inputs.images import CHANNELS, resized
from metaaudit.inputs.source import ImageSource, Pixels
from metaaudit.inputs.stored_images import common_shape, rows_of

_DIGITS = set("0123456789")


def idx_source(config: IdxConfig) -> ImageSource:
    """The images of all pairs of files that a configuration names, by label.

    No task has two turns of one class. Where classes are digits, no task has a 6 and a 9 either,
    if some images are turned by 180 degrees against others: a 6 turned so is a 9.

    Raises:
        TaskSetError: As ``idx_images`` does.
    """
    found = idx_images(config.root, config.image)
    return replace(found, kinds=_kinds(list(found.classes), config.rotations))


def idx_images(root: Path, image: ImageConfig) -> ImageSource:
    """The images of all pairs of files, by label.

    Args:
        root: A folder of ``*-images-idx3-ubyte`` and ``*-labels-idx1-ubyte`` files, or one file of
            images. Of a file and its ``.gz`` the file is taken.
        image: Size and colours.

    Returns:
        Ids are ``<file of images>/<index>``, and classes the labels.

    Raises:
        TaskSetError: There is no such pair, a file is damaged or of another kind, or two that
            belong together differ in length.
    """
    files: dict[str, IdxFile] = {}
    classes: dict[int, list[str]] = {}
    for stem, path in _image_files(root).items():
        files[stem] = images = IdxFile.opened(path, dims=3)
        labels = _labels_beside(images)
        for row, label in enumerate(labels.tolist()):
            classes.setdefault(label, []).append(f"{stem}/{row}")
    return ImageSource(
        where=root,
        classes={str(label): classes[label] for label in sorted(classes)},
        read=lambda ids: _read(files, ids, image),
    )


def _image_files(root: Path) -> dict[str, Path]:
    """Files of images by name without ``.gz``."""
    try:
        if root.is_file():
            found = [root]
        elif root.is_dir():
            # Reversed, so that a file comes after its .gz and takes its place.
            found = sorted(root.glob("*images*idx3*"), reverse=True)
        else:
            raise TaskSetError(root, "does not exist", "a folder or a file", "check tasks.root")
    except OSError as error:
        raise TaskSetError(root, f"cannot be read ({error.strerror})") from None
    if not found:
        raise TaskSetError(root, "holds no images", "*-images-idx3-ubyte files, .gz or not")
    return dict(sorted({path.name.removesuffix(".gz"): path for path in found}.items()))


def _labels_beside(images: IdxFile) -> Pixels:
    """The labels ``[n]`` of a file of images, from the file with the same name but for that."""
    name = images.path.name.removesuffix(".gz").replace("idx3", "idx1")
    start, found, end = name.rpartition("images")
    path = images.path.with_name(f"{start}labels{end}")
    if not found or not path.is_file():
        path = path.with_name(f"{path.name}.gz")
    if not found or not path.is_file():
        raise TaskSetError(
            images.path, "has no labels beside it", f"{path.name.removesuffix('.gz')}, .gz or not"
        )
    labels = IdxFile.opened(path, dims=1)
    if len(labels) != len(images):
        raise TaskSetError(
            path, f"holds {len(labels)} labels", f"{len(images)}, as {images.path.name} has images"
        )
    return np.concatenate(list(labels.blocks()))


def _read(files: dict[str, IdxFile], ids: Sequence[str], image: ImageConfig) -> Pixels:
    wanted, colour = rows_of(ids), image.colour
    shape = common_shape([(files[stem].path, files[stem]) for stem in wanted], image)
    pixels = np.empty((len(ids), CHANNELS[colour], *shape), dtype=np.uint8)
    for stem, (rows, places) in wanted.items():
        start = 0
        for block in files[stem].blocks():  # in order, since a .gz has no other
            low, high = np.searchsorted(rows, [start, start + len(block)])
            picked = block[rows[low:high] - start, np.newaxis]
            pixels[places[low:high]] = resized(picked, image.size, colour)
            start += len(block)
    return pixels


def _kinds(classes: Sequence[str], rotations: Sequence[int]) -> dict[str, str]:
    turns = {0, *rotations}
    opposite = any((turn + 180) % 360 in turns for turn in turns)
    if not opposite or not _DIGITS.issuperset(classes):
        return {name: name for name in classes}
    return {name: "6 or 9" if name in ("6", "9") else name for name in classes}
