"""The pixels of image files, decoded once for each change of the files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from metaaudit.cache import FactorCache, cache_folder
from metaaudit.config.tasks import ImageConfig
from metaaudit.console import Messages
from metaaudit.errors import RunError, TaskSetError
from metaaudit.inputs.image_files import ImageFile, read_image_files
from metaaudit.inputs.images import decode_image, decoding_versions
from metaaudit.inputs.source import Pixels

Copies = Mapping[str, Sequence[ImageFile]]
"""The files of each image, by its id: several containers may hold the same one."""

MIN_CACHED = 1000
"""Fewer are decoded each time: that takes 0.1 ms each where they are small, and a file in the
cache 30 ms whatever it holds. For 3,000 images of 64x64 the cache saves half a second of one."""


def decoded_by_id(copies: Copies, image: ImageConfig) -> Callable[[Sequence[str]], Pixels]:
    """How images are read from their files: decoded, or from the cache if it holds them all.

    Args:
        copies: All images of a data set.
        image: Size and colours of the result.

    Returns:
        ``read`` of an ``ImageSource``. It raises a ``TaskSetError`` where an image cannot be read,
        its copies differ, or images differ in size and ``image.size`` does not say which to take.
    """

    def read(ids: Sequence[str]) -> Pixels:
        chosen = {image_id: copies[image_id] for image_id in ids}
        if len(chosen) < MIN_CACHED:
            return _decode(chosen, image)
        return _cached(chosen, image)

    return read


def _cached(copies: Copies, image: ImageConfig) -> Pixels:
    messages = Messages()
    cache = FactorCache(cache_folder(), say=messages.say)
    depends_on = {
        "code": [Path(__file__).read_text(encoding="utf-8"), *decoding_versions()],
        "image": [image.size, image.colour],
        "files": _stamps(copies),
    }
    try:
        arrays = cache.get(
            "images", depends_on, lambda: {"pixels": _decode(copies, image)}, label="images"
        )
    except RunError:  # no folder to write to, which is no reason not to read images
        return _decode(copies, image)
    for warning in cache.warnings:
        messages.warn(warning)
    return np.asarray(arrays["pixels"], dtype=np.uint8)


def _stamps(copies: Copies) -> str:
    """SHA-256 of the ids, in order, and of what tells a file from what it was before."""
    digest = hashlib.sha256()
    for image_id, files in copies.items():
        digest.update(repr((image_id, [file.stamp for file in files])).encode())
    return digest.hexdigest()


def _decode(copies: Copies, image: ImageConfig) -> Pixels:
    """The images' pixels ``[len(copies), channels, height, width]``."""
    row_of = {image_id: row for row, image_id in enumerate(copies)}
    id_of = {file: image_id for image_id, files in copies.items() for file in files}
    pixels: Pixels | None = None
    seen: dict[str, tuple[ImageFile, bytes]] = {}  # by id: the file and its digest
    for file, data in read_image_files(id_of):
        image_id = id_of[file]
        if len(copies[image_id]) > 1 and not _is_first(file, data, image_id, seen):
            continue
        decoded = decode_image(data, image.size, file, image.colour)
        if pixels is None:
            first, pixels = file, np.empty((len(copies), *decoded.shape), dtype=np.uint8)
        if decoded.shape != pixels.shape[1:]:
            raise TaskSetError(
                file,
                f"is {decoded.shape[2]}x{decoded.shape[1]}, and {first} is "
                f"{pixels.shape[3]}x{pixels.shape[2]}",
                "one size",
                "set tasks.image.size",
            )
        pixels[row_of[image_id]] = decoded
    assert pixels is not None
    return pixels


def _is_first(
    file: ImageFile, data: bytes, image_id: str, seen: dict[str, tuple[ImageFile, bytes]]
) -> bool:
    """Whether no copy of an image was seen before, after comparing the bytes if one was."""
    digest = hashlib.sha256(data).digest()
    if seen.setdefault(image_id, (file, digest)) == (file, digest):
        return True
    if seen[image_id][1] != digest:
        raise TaskSetError(
            file, f"differs from {seen[image_id][0]}", "one image a name", "remove one of them"
        )
    return False
