"""One small good case of every format, which a test breaks in one place."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from metaaudit.config.model import Conv4Config
from metaaudit.inputs.arrays import write_arrays
from metaaudit.inputs.checkpoints import write_checkpoint
from metaaudit.models import build_model
from tests.small import Case
from tests.written import (
    Images,
    made_up,
    write_idx,
    write_image_csv,
    write_image_folder,
    write_metaoptnet,
    write_mini_imagenet,
    write_torchmeta_cifar,
    write_torchmeta_mini_imagenet,
    write_torchmeta_omniglot,
)

Settings = dict[str, Any]
Arrays = dict[str, npt.NDArray[Any]]
Good = tuple[Callable[[Path], Any], Settings]

WAYS, HIDDEN, SIZE = 2, 4, 8

SAMPLED: Settings = {
    "root": "data",
    "episode": {"ways": WAYS, "shots": 2, "queries": 2},
    "train": {"tasks": 4},
    "eval": {"tasks": 4},
}
FACTORY = """
import numpy as np


def task(seed):
    rng = np.random.default_rng(seed)
    x = rng.random((8, 1, 8, 8), dtype=np.float32)
    y = np.arange(8) % 2
    return {"support_x": x[:4], "support_y": y[:4], "query_x": x[4:], "query_y": y[4:]}


def tasks():
    return [task(0), task(1)], [task(2), task(3)]
"""


def classes(*names: str, channels: int = 3, images: int = 4, seed: int = 0) -> Images:
    return made_up(names, images=images, size=SIZE, channels=channels, seed=seed)


def coloured() -> dict[str, Images]:
    return {"train": classes("ant", "bee", "cat"), "test": classes("dog", "elk", "fox", seed=1)}


def strokes() -> dict[str, Images]:
    names = {"train": "Greek", "test": "Latin"}
    return {
        split: classes(f"{alphabet}/a1", f"{alphabet}/a2", f"{alphabet}/a3", channels=1, seed=row)
        for row, (split, alphabet) in enumerate(names.items())
    }


def fine() -> dict[str, Images]:
    return {
        "train": classes("fish/ray", "fish/shark"),
        "test": classes("trees/oak", "trees/pine", seed=1),
    }


def archive(root: Path) -> Path:
    """Packs a folder into ``pack.zip``, which is all that is left in it."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    with zipfile.ZipFile(root / "pack.zip", "w") as pack:
        for path in paths:
            pack.writestr(zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes())
            path.unlink()
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
    return root


def episodes(naming: str, seed: int) -> Arrays:
    """Two tasks by the names of a code base; joined: support and query of a class side by side."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(WAYS), (2, 2))
    x = [rng.random((2, 4, 1, SIZE, SIZE), dtype=np.float32) for _ in range(2)]
    if naming == "joined":
        order = np.argsort(np.concatenate([labels[0]] * 2), kind="stable")
        both = np.concatenate(x, axis=1)[:, order]
        return {"data": both, "labels": np.concatenate([labels] * 2, axis=1)[:, order]}
    names = {
        "own": ("support_x", "support_y", "query_x", "query_y"),
        "maml-pytorch": ("x_spt", "y_spt", "x_qry", "y_qry"),
        "torchmeta": ("train_inputs", "train_targets", "test_inputs", "test_targets"),
    }[naming]
    return dict(zip(names, (x[0], labels, x[1], labels.copy()), strict=True))


def _ready_made(naming: str, suffix: str) -> Good:
    def write(root: Path) -> None:
        root.mkdir()
        for seed, side in enumerate(("train", "eval")):
            write_arrays(root / f"{side}{suffix}", episodes(naming, seed))

    joined = {"joined": {"shots": 2}} if naming == "joined" else {}
    paths = {side: f"data/{side}{suffix}" for side in ("train", "eval")}
    return write, {"format": "episodes", **paths, **joined}


def _own_tasks(root: Path) -> None:
    root.mkdir()
    (root / "own_tasks.py").write_text(FACTORY, encoding="utf-8")


def _digits(root: Path) -> Path:
    return write_idx(root, classes(*"012345", channels=1))


def _compressed_digits(root: Path) -> Path:
    return write_idx(root, classes(*"012345", channels=1), compressed=True)


def _drawings(root: Path) -> Path:
    for images in strokes().values():
        write_image_folder(root, images)
    return root


def _folders(root: Path) -> Path:
    for split, images in coloured().items():
        write_image_folder(root / split, images)
    return root


def _sampled(name: str, image: Settings | None = None, **changes: Any) -> Settings:
    return copy.deepcopy({"format": name, **SAMPLED, "image": image or {}, **changes})


HALVED = {"train": {"tasks": 4, "classes": 3}}

GOOD: dict[str, Good] = {
    "idx": (_digits, _sampled("idx", **HALVED)),
    "idx.gz": (_compressed_digits, _sampled("idx", **HALVED)),
    "omniglot": (_drawings, _sampled("omniglot", {"size": SIZE}, **HALVED)),
    "omniglot zip": (
        lambda root: archive(_drawings(root)),
        _sampled("omniglot", {"size": SIZE}, **HALVED),
    ),
    "image-folder": (_folders, _sampled("image-folder")),
    "image-folder zip": (lambda root: archive(_folders(root)), _sampled("image-folder")),
    "image-csv": (lambda root: write_image_csv(root, coloured()), _sampled("image-csv")),
    "mini-imagenet": (
        lambda root: write_mini_imagenet(root, coloured(), protocol=4),
        _sampled("mini-imagenet"),
    ),
    "metaoptnet": (
        lambda root: write_metaoptnet(root, coloured(), protocol=4),
        _sampled("metaoptnet"),
    ),
    "torchmeta omniglot": (
        lambda root: write_torchmeta_omniglot(root, strokes()),
        _sampled("torchmeta", {"colour": "grey"}),
    ),
    "torchmeta miniimagenet": (
        lambda root: write_torchmeta_mini_imagenet(root, coloured()),
        _sampled("torchmeta"),
    ),
    "torchmeta cifar100": (
        lambda root: write_torchmeta_cifar(root, fine()),
        _sampled("torchmeta"),
    ),
    **{
        f"{naming} {suffix}": _ready_made(naming, suffix)
        for naming in ("own", "maml-pytorch", "torchmeta", "joined")
        for suffix in (".npz", ".h5")
    },
    "factory": (_own_tasks, {"format": "factory", "factory": "own_tasks:tasks", "path": "data"}),
}
"""What writes the data of a format into a folder, and the section ``tasks`` for it."""

IN_COLOUR = ("image", "mini", "metaopt", "torchmeta mini", "torchmeta cifar")


def write_good(folder: Path, name: str) -> Case:
    """Data, a checkpoint of random weights and a configuration, none of them with a fault."""
    folder.mkdir(parents=True)
    channels = 3 if name.startswith(IN_COLOUR) else 1
    write, tasks = GOOD[name]
    write(folder / "data")
    model = {"name": "conv4", "hidden": HIDDEN, "in_channels": channels, "ways": WAYS}
    case = Case(folder)
    config = {
        "model": model,
        "learner": {"name": "maml", "inner_lr": 0.1, "steps": 1},
        "checkpoint": case.checkpoint.name,
        "tasks": tasks,
        "mislabel": {"folds": 2},
        "compute": {"device": "cpu"},
    }
    case.config.write_text(yaml.safe_dump(config), encoding="utf-8")
    write_checkpoint(case.checkpoint, weights(channels), {})
    return case


def weights(channels: int = 1, hidden: int = HIDDEN, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of the model of a good case."""
    config = Conv4Config(name="conv4", hidden=hidden, in_channels=channels, ways=WAYS)
    shape = (channels, SIZE, SIZE)
    return dict(build_model(config, input_shape=shape, ways=WAYS, seed=seed).initial())


def change_settings(case: Case, changes: Mapping[str, Any]) -> None:
    """Changes values of a case's configuration, by dotted key."""
    config = yaml.safe_load(case.config.read_text(encoding="utf-8"))
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        section = config
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    case.config.write_text(yaml.safe_dump(config), encoding="utf-8")
