"""Made-up images by class: as files, in folders and zips, and without any file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metaaudit.config.tasks import FORMATS, SampledConfig
from metaaudit.inputs.source import ImageSource, Pixels
from metaaudit.inputs.task_set import TaskSet

Files = dict[str, bytes]

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def encoded(pixels: Any, kind: str = "PNG") -> bytes:
    """An image file with these pixels: ``[h, w]`` of uint8 or bool, or ``[h, w, 3]``."""
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, kind)
    return stream.getvalue()


def noise(rng: np.random.Generator, *shape: int) -> bytes:
    """A PNG of random pixels."""
    return encoded(rng.integers(0, 256, shape, dtype=np.uint8))


def pictures(folders: Sequence[str], images: int = 4, side: int = 6) -> Files:
    """Random images ``<folder>/<number>.png``."""
    rng = np.random.default_rng(0)
    return {
        f"{folder}/{number}.png": noise(rng, side, side, 3)
        for folder in folders
        for number in range(images)
    }


def as_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    """Writes the files below a folder."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def as_zip(path: Path, files: Mapping[str, bytes], prefix: str = "small1/") -> Path:
    """Writes the files into a zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(prefix + name, data)
    return path


def config(kind: str = "image-folder", root: Path = Path("set"), **changes: Any) -> Any:
    """A configuration of 2-way tasks with 2 support images and 1 query image a class.

    Args:
        kind: The format.
        root: Where the data set is.
        changes: Keys, whose sections are merged with the ones here.
    """
    sections: dict[str, Any] = {
        "episode": {"ways": 2, "shots": 2, "queries": 1},
        "train": {"tasks": 5},
        "eval": {"tasks": 4},
    }
    for key, value in changes.items():
        merged = isinstance(value, dict) and key in sections
        sections[key] = {**sections[key], **value} if merged else value
    found = FORMATS[kind](format=kind, root=root, **sections)
    assert isinstance(found, SampledConfig)
    return found


def source(
    classes: Mapping[str, int] | Sequence[str],
    splits: Mapping[str, Sequence[str]] | None = None,
    kinds: Mapping[str, str] | None = None,
    side: int = 2,
) -> ImageSource:
    """A data set without files, of 4 images a class or as many as given."""
    counts = classes if isinstance(classes, Mapping) else dict.fromkeys(classes, 4)
    ids = {name: [f"{name}/{row}" for row in range(n)] for name, n in counts.items()}
    number = {image_id: row for row, image_id in enumerate(i for c in ids.values() for i in c)}

    def read(wanted: Sequence[str]) -> Pixels:
        numbers = np.array([number[image_id] for image_id in wanted], dtype=np.uint32)
        corner = np.stack([numbers % 256, numbers // 256], axis=1).astype(np.uint8)
        pixels = np.zeros((len(wanted), 1, side, side), dtype=np.uint8)
        pixels[:, 0, 0, :2] = corner
        return pixels

    return ImageSource(Path("set"), ids, read, splits or {}, kinds or {})


def used_classes(task_set: TaskSet) -> set[str]:
    """The classes that the tasks have."""
    return {name for task in task_set.tasks for name in task.class_names}


def used_images(task_set: TaskSet) -> set[str]:
    """The ids of all images in the tasks."""
    return {
        task_set.pool.ids[row] for task in task_set.tasks for row in (*task.support, *task.query)
    }


def drawn(task_set: TaskSet) -> list[Any]:
    """All that is drawn for the tasks, without the pixels."""
    return [
        (
            task.task_id,
            task.class_names,
            task.support_y.tolist(),
            task.query_y.tolist(),
            [task_set.pool.ids[row] for row in (*task.support, *task.query)],
        )
        for task in task_set.tasks
    ]
