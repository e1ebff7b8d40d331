"""Data sets in exactly the files that others write, made from a few images by class.

Everything here takes ``Images``, or ``Images`` by split; none of it is random.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.small import DATA

Images = Mapping[str, npt.NDArray[np.uint8]]
"""The images of each class, ``[n, height, width, channels]``."""

SPLITS = ("train", "val", "test")

TINY_IMAGENET = DATA / "tiny-imagenet" / "tiny-imagenet-100.zip"
needs_tiny_imagenet = pytest.mark.skipif(
    not TINY_IMAGENET.is_file(), reason=f"no {TINY_IMAGENET} (set METAAUDIT_DATA)"
)


def made_up(
    names: Iterable[str], images: int = 6, size: int = 8, channels: int = 3, seed: int = 0
) -> Images:
    """Images of noise, each class around a brightness of its own."""
    rng = np.random.default_rng(seed)
    shape = (images, size, size, channels)
    return {
        name: (rng.integers(0, 100, shape) + 150 * (row % 2)).astype(np.uint8)
        for row, name in enumerate(names)
    }


def tiny_imagenet(size: int, classes: int, images: int = 40) -> Images:
    """The first images of the first classes of Tiny ImageNet, RGB, resized."""
    found: dict[str, list[npt.NDArray[np.uint8]]] = {}
    with zipfile.ZipFile(TINY_IMAGENET) as archive:
        names = [name for name in archive.namelist() if name.endswith(".JPEG")]
        by_class: dict[str, list[str]] = {}
        for name in sorted(names, key=lambda name: name.rsplit("/", 2)[1:]):
            by_class.setdefault(name.split("/")[-2], []).append(name)
        for label in list(by_class)[:classes]:
            for name in by_class[label][:images]:
                image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                resized = image.resize((size, size), Image.Resampling.BILINEAR)
                found.setdefault(label, []).append(np.asarray(resized, dtype=np.uint8))
    return {label: np.stack(pixels) for label, pixels in found.items()}


def divided(images: Images, shares: tuple[int, ...] = (64, 16, 20)) -> dict[str, Images]:
    """The classes by split: ``train``, ``val``, ``test``, in these shares, without empty ones."""
    names, ends = list(images), np.cumsum((0, *shares)) * len(images) // sum(shares)
    return {
        split: {name: images[name] for name in names[start:end]}
        for split, start, end in zip(SPLITS, ends[:-1], ends[1:], strict=True)
        if start < end
    }


# Pickles


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes what Python 2 and NumPy 1 would: text and bytes are one thing there."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    def save_name(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text
    dispatch[type] = dispatch[type(len)] = dispatch[type(made_up)] = save_name

    def save_global(self, value: Any, name: str | None = None) -> None:
        self.save_name(value, name)


def write_pickle(path: Path, value: Any, protocol: int | None = None) -> Path:
    """Writes a pickle of this Python; without a protocol, one as Python 2 would, protocol 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        if protocol is None:
            _Python2Pickler(stream, protocol=2).dump(value)
        else:
            pickle.dump(value, stream, protocol=protocol)
    return path


def write_mini_imagenet(
    root: Path, splits: Mapping[str, Images], protocol: int | None = None
) -> Path:
    """``mini-imagenet-cache-<split>.pkl``: ``image_data`` and ``class_dict``."""
    for split, images in splits.items():
        content = {"image_data": np.concatenate(list(images.values())), "class_dict": {}}
        start = 0
        for name, pixels in images.items():
            content["class_dict"][name] = list(range(start, start + len(pixels)))
            start += len(pixels)
        write_pickle(root / f"mini-imagenet-cache-{split}.pkl", content, protocol)
    return root


def write_metaoptnet(
    root: Path,
    splits: Mapping[str, Images],
    family: str = "FC100",
    protocol: int | None = None,
    *,
    from_zero: bool = False,
) -> Path:
    """``<family>_<split>.pickle``: ``data`` and ``labels``, numbered through all splits.

    Args:
        root: Where to write them.
        splits: Images by split.
        family: ``FC100`` or ``CIFAR_FS``.
        protocol: Of the pickles.
        from_zero: Whether the labels of every split begin with 0.
    """
    first = 0
    for split, images in splits.items():
        labels = [
            label for label, pixels in enumerate(images.values(), first) for _ in range(len(pixels))
        ]
        content = {
            "data": np.concatenate(list(images.values())),
            "labels": labels,
            "label2catname": dict(enumerate(images, first)),
        }
        write_pickle(root / f"{family}_{split}.pickle", content, protocol)
        first += 0 if from_zero else len(images)
    return root


# Torchmeta


def write_torchmeta_omniglot(root: Path, splits: Mapping[str, Images]) -> Path:
    """``data.hdf5`` and lists of labels, as below torchmeta's folder ``omniglot``.

    Classes are ``alphabet/character``, their images ``[n, 105, 105, 1]``, white on black; the
    alphabets of ``train`` and ``val`` are in ``images_background``.
    """
    root.mkdir(parents=True, exist_ok=True)
    plain: dict[str, list[list[str]]] = {"train": [], "test": []}
    with h5py.File(root / "data.hdf5", "w") as file:
        for split, images in splits.items():
            group = "images_evaluation" if split == "test" else "images_background"
            labels = [[group, *name.split("/")] for name in images]
            for label, pixels in zip(labels, images.values(), strict=True):
                file.create_dataset("/".join(label), data=pixels[..., 0])
            plain["test" if split == "test" else "train"] += labels
            _write_json(root / f"vinyals_{split}_labels.json", sorted(labels))
    for split, labels in plain.items():
        _write_json(root / f"{split}_labels.json", sorted(labels))
    return root


def write_torchmeta_mini_imagenet(root: Path, splits: Mapping[str, Images]) -> Path:
    """``<split>_data.hdf5`` and lists of labels, as below torchmeta's ``miniimagenet``."""
    root.mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        with h5py.File(root / f"{split}_data.hdf5", "w") as file:
            group = file.create_group("datasets")
            for name, pixels in images.items():
                group.create_dataset(name, data=pixels)
        _write_json(root / f"{split}_labels.json", sorted(images))
    return root


def write_torchmeta_cifar(
    root: Path, splits: Mapping[str, Images], benchmark: str = "fc100"
) -> Path:
    """``data.hdf5`` and, in a folder of its own, lists of labels: torchmeta's ``cifar100``.

    Args:
        root: Where to write them; a second benchmark of the same images may be added.
        splits: Images by split, of the classes ``superclass/class``.
        benchmark: ``fc100`` or ``cifar-fs``, the folder of the labels.
    """
    (root / benchmark).mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {}
    with h5py.File(root / "data.hdf5", "a") as file:
        for split, images in splits.items():
            labels = [name.split("/") for name in images]
            for (coarse, fine), pixels in zip(labels, images.values(), strict=True):
                names.setdefault(coarse, []).append(fine)
                if f"{coarse}/{fine}" not in file:
                    file.create_dataset(f"{coarse}/{fine}", data=pixels)
            _write_json(root / benchmark / f"{split}_labels.json", labels)
    _write_json(root / "fine_names.json", names)
    return root


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


# Files of bytes and of images


def write_idx(root: Path, images: Images, stem: str = "train", *, compressed: bool = False) -> Path:
    """A pair of idx files; classes are named after their labels, images have one channel."""
    root.mkdir(parents=True, exist_ok=True)
    pixels = np.concatenate(list(images.values()))[..., 0]
    labels = np.repeat(
        np.array([int(name) for name in images], dtype=np.uint8),
        [len(of_class) for of_class in images.values()],
    )
    for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        with _idx_stream(root / f"{stem}-{kind}-ubyte", compressed) as stream:
            stream.write(bytes([0, 0, 8, array.ndim]))
            stream.write(np.array(array.shape, dtype=">u4").tobytes() + array.tobytes())
    return root


def _idx_stream(path: Path, compressed: bool) -> BinaryIO | gzip.GzipFile:
    if compressed:
        return gzip.GzipFile(path.with_name(f"{path.name}.gz"), "wb", mtime=0)
    return path.open("wb")


def write_image_folder(root: Path, images: Images, suffix: str = ".png") -> Path:
    """``class/<class>_<index>.png``; for splits, one call each with ``root / split``."""
    for name, pixels in images.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for row, image in enumerate(pixels):
            _image(image).save(root / name / f"{Path(name).name}_{row}{suffix}")
    return root


def write_image_csv(root: Path, splits: Mapping[str, Images], suffix: str = ".jpg") -> Path:
    """``<split>.csv`` with the columns ``filename,label``, and a folder ``images``."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        lines = ["filename,label"]
        for name, pixels in images.items():
            for row, image in enumerate(pixels):
                file = f"{name}{row:08d}{suffix}"
                _image(image).save(root / "images" / file)
                lines.append(f"{file},{name}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def _image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
