"""Faults to put into the good cases of ``formats``: of bytes, of each kind of file, of weights."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from metaaudit.inputs.checkpoints import write_checkpoint
from tests.cli.formats import SIZE, Arrays, classes
from tests.written import write_idx

Break = Callable[[Path], Any]
"""Puts a fault into the files of a folder."""


@dataclass(frozen=True)
class Bad:
    """A good case with a fault.

    Attributes:
        good: Name of the good case.
        names: The file or the key that the message has to name.
        reason: What it has to say of it.
        broken: Puts a fault into a file, if it is one of a file.
        settings: Settings that are changed, by dotted key.
    """

    good: str
    names: str
    reason: str
    broken: Break = field(default=lambda folder: None)
    settings: dict[str, Any] = field(default_factory=dict)


MARKER = "METAAUDIT_TEST_SIDE_EFFECT"
"""Names the folder that a pickle would create."""


class Evil:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ[MARKER],)


# Faults of bytes


def cut(name: str, by: int = 5) -> Break:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-by])

    return apply


def flip(name: str, place: int, mask: int = 0x40) -> Break:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[place] ^= mask
        (folder / name).write_bytes(data)

    return apply


def flip_in(name: str, found: bytes, mask: int = 0x40) -> Break:
    """Flips a bit of the first byte of what is found there."""

    def apply(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert found in data
        flip(name, data.index(found), mask)(folder)

    return apply


def put(name: str, data: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(data)


def add(name: str, data: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + data)


def text(name: str, content: str) -> Break:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def remove(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def swap(name: str, old: str, new: str) -> Break:
    """Replaces a piece of a text file."""

    def apply(folder: Path) -> None:
        content = (folder / name).read_text(encoding="utf-8")
        assert old in content
        (folder / name).write_text(content.replace(old, new, 1), encoding="utf-8")

    return apply


# Faults of each kind of file

PACK = "data/pack.zip"
IDX, IDX_LABELS = "data/train-images-idx3-ubyte", "data/train-labels-idx1-ubyte"
MINI, FC100 = "data/mini-imagenet-cache-train.pkl", "data/FC100_train.pickle"
OMNIGLOT_H5, MINI_H5, CIFAR = "data/data.hdf5", "data/train_data.hdf5", "data/data.hdf5"
TRAIN_H5 = "data/train.h5"


def short_gzip(folder: Path) -> None:
    """A whole gzip that holds one byte too few."""
    path = folder / f"{IDX}.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def few_digits(folder: Path) -> None:
    images = dict(classes(*"012345", channels=1))
    images["3"] = images["3"][:3]
    write_idx(folder / "data", images)


def larger_digits(folder: Path) -> None:
    images = classes(*"012345", channels=1)
    large = {name: np.kron(v, np.ones((1, 2, 2, 1), np.uint8)) for name, v in images.items()}
    write_idx(folder / "data", large, stem="t10k")


def picture(name: str, size: tuple[int, int] = (SIZE, SIZE), mode: str = "RGB") -> Break:
    return lambda folder: Image.new(mode, size).save(folder / name)


def claims_size(name: str, side: int) -> Break:
    """A PNG whose header claims a size, with a right checksum."""

    def apply(folder: Path) -> None:
        out = io.BytesIO()
        Image.new("L", (1, 1)).save(out, format="PNG")
        data = bytearray(out.getvalue())
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zipfile.crc32(data[12:29]).to_bytes(4, "big")
        (folder / name).write_bytes(data)

    return apply


def add_to_zip(name: str, data: bytes) -> Break:
    def apply(folder: Path) -> None:
        with zipfile.ZipFile(folder / PACK, "a") as pack:
            pack.writestr(name, data)

    return apply


def member_bit(folder: Path) -> None:
    """Flips a bit of the first image of a zip, whose directory has its checksum."""
    with zipfile.ZipFile(folder / PACK) as pack:
        info = pack.infolist()[0]
    flip(PACK, info.header_offset + 30 + len(info.filename) + 60)(folder)


def change_pickle(name: str, change: Callable[[dict[str, Any]], Any]) -> Break:
    def apply(folder: Path) -> None:
        content = pickle.loads((folder / name).read_bytes())
        (folder / name).write_bytes(pickle.dumps(change(content), protocol=4))

    return apply


def code(name: str) -> Break:
    return change_pickle(name, lambda content: {**content, "more": Evil()})


def claims_shape(name: str) -> Break:
    """The first of an array's dimensions, 12 images, becomes two thousand million."""

    def apply(folder: Path) -> None:
        data, twelve = (folder / name).read_bytes(), b"K\x0cK\x08K\x08K\x03"
        assert data.count(twelve) == 1
        many = pickle.BININT + (2**31 - 1).to_bytes(4, "little") + twelve[2:]
        (folder / name).write_bytes(data.replace(twelve, many))

    return apply


def nested(name: str, depth: int = 1 << 15) -> Break:
    """Lists in lists, deeper than what calls itself for each of them could go."""
    data = pickle.EMPTY_LIST * depth + pickle.APPEND * (depth - 1) + pickle.STOP
    return put(name, pickle.PROTO + b"\4" + data)


def again_and_again(name: str) -> Break:
    """A pickle of a kilobyte whose lists hold each other ten times over, thirty times."""
    lines = [pickle.PROTO + b"\4" + pickle.EMPTY_LIST + pickle.BINPUT + b"\0"]
    for level in range(1, 30):
        get = pickle.BINGET + bytes([level - 1])
        ten = pickle.EMPTY_LIST + pickle.MARK + get * 10 + pickle.APPENDS
        lines.append(ten + pickle.BINPUT + bytes([level]))
    return put(name, b"".join(lines) + pickle.STOP)


def change_hdf5(name: str, change: Callable[[h5py.File], Any]) -> Break:
    def apply(folder: Path) -> None:
        with h5py.File(folder / name, "r+") as file:
            change(file)

    return apply


def external_link(name: str, dataset: str) -> Break:
    """The dataset goes to another file, to which a link leads."""

    def apply(folder: Path) -> None:
        other = shutil.copy(folder / name, folder / "other.h5")

        def link(file: h5py.File) -> None:
            del file[dataset]
            file[dataset] = h5py.ExternalLink(str(other), dataset)

        change_hdf5(name, link)(folder)

    return apply


def soft_link(name: str, dataset: str, target: str) -> Break:
    """In place of a dataset, a link to another one of the same file."""

    def link(file: h5py.File) -> None:
        del file[dataset]
        file[dataset] = h5py.SoftLink(f"/{target}")

    return change_hdf5(name, link)


def virtual(name: str, dataset: str) -> Break:
    def apply(folder: Path) -> None:
        other = shutil.copy(folder / name, folder / "other.h5")

        def replace(file: h5py.File) -> None:
            old = file[dataset]
            layout = h5py.VirtualLayout(old.shape, old.dtype)
            layout[:] = h5py.VirtualSource(other, dataset, old.shape)
            del file[dataset]
            file.create_virtual_dataset(dataset, layout)

        change_hdf5(name, replace)(folder)

    return apply


def replace_dataset(name: str, dataset: str, change: Callable[[Any], Any]) -> Break:
    def replace(file: h5py.File) -> None:
        values = change(file[dataset][()])
        del file[dataset]
        file[dataset] = values

    return change_hdf5(name, replace)


def claimed_dataset(file: h5py.File, dataset: str, shape: tuple[int, ...]) -> None:
    """A dataset of which nothing is stored."""
    kind = file[dataset].dtype
    del file[dataset]
    file.create_dataset(dataset, shape, kind, chunks=(1, *shape[1:]))


def change_arrays(change: Callable[[Arrays], Any], name: str = "data/train.npz") -> Break:
    def apply(folder: Path) -> None:
        with np.load(folder / name) as file:
            content = dict(file)
        change(content)
        np.savez(folder / name, **content)

    return apply


def claimed_array(folder: Path) -> None:
    """Arrays whose headers claim 256 GiB, in a zip that is whole."""
    path = folder / "data" / "train.npz"
    with zipfile.ZipFile(path) as pack:
        members = {name: pack.read(name) for name in pack.namelist()}
    for name, kind, shape in (("support_x", "<f4", (1, SIZE, SIZE)), ("support_y", "<i8", ())):
        head = io.BytesIO()
        form = {"descr": kind, "fortran_order": False, "shape": (2, 1 << 29, *shape)}
        np.lib.format.write_array_header_1_0(head, form)
        members[f"{name}.npy"] = head.getvalue()
    with zipfile.ZipFile(path, "w") as pack:
        for name, data in members.items():
            pack.writestr(name, data)


# Faults of checkpoints

ST = "checkpoint.safetensors"


def change_weights(change: Callable[[dict[str, torch.Tensor]], Any], suffix: str = "") -> Break:
    """Writes changed weights, as a state dict with the suffix if one is given."""

    def apply(folder: Path) -> None:
        found: Any = dict(sorted(load_file(folder / ST).items()))
        found = change(found) or found
        if suffix:
            torch.save(found, folder / f"weights{suffix}")
        else:
            write_checkpoint(folder / ST, found, {})

    return apply


def state_dict(change: Callable[[dict[str, torch.Tensor]], Any]) -> Break:
    return change_weights(change, ".pt")


def whole(tensors: dict[str, torch.Tensor]) -> None:
    """No change."""


def then(*faults: Break) -> Break:
    def apply(folder: Path) -> None:
        for fault in faults:
            fault(folder)

    return apply


def fill(value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[min(tensors)].view(-1)[0] = value

    return change


def twice(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{p}.{n}": t * k for k, p in enumerate(("old", "new"), 1) for n, t in tensors.items()}
