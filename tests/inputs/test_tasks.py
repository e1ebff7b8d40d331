"""From a configuration file to tasks, for every format of images that needs no library."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import yaml

from metaaudit.config import load_config
from metaaudit.config.tasks import FORMATS
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import READY_MADE, SOURCES, load_tasks
from tests.inputs.pictures import as_folder, pictures, used_classes
from tests.inputs.test_idx import idx

SIDE = 6
NAMES = [f"a/c{number}" for number in range(6)]


def omniglot(root: Path) -> None:
    as_folder(root, pictures(NAMES))


def mnist(root: Path) -> None:
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, SIDE, SIDE))
    (root / "x-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
    (root / "x-labels-idx1-ubyte").write_bytes(idx(np.arange(48) % 6))


def folders(root: Path) -> None:
    as_folder(root, pictures([name[2:] for name in NAMES]))


def csv_files(root: Path) -> None:
    as_folder(root, pictures(["images"], images=24))
    lines = "".join(f"{row}.png,c{row % 6}\n" for row in range(24))
    (root / "all.csv").write_text(f"filename,label\n{lines}")


MAKERS = {"omniglot": omniglot, "idx": mnist, "image-folder": folders, "image-csv": csv_files}


def loaded(folder: Path, kind: str) -> tuple[TaskSet, TaskSet]:
    if not (folder / "set").exists():
        MAKERS[kind](folder / "set")
    document = {
        "model": {"name": "mlp"},
        "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
        "checkpoint": "c.pt",
        "tasks": {
            "format": kind,
            "root": "set",
            "image": {"size": 8, "colour": "rgb", "mean": [0.5, 0.25, 0.0], "std": [0.5]},
            "episode": {"ways": 2, "shots": 2, "queries": 1},
            "rotations": [180],
            "train": {"tasks": 30, "classes": 4, "seed": 3},
            "eval": {"tasks": 9},
        },
    }
    path = folder / "metaaudit.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_tasks(load_config(path).tasks)


def test_every_format_is_loaded_by_something() -> None:
    assert {*SOURCES, *READY_MADE} == set(FORMATS.values())


@pytest.mark.parametrize("kind", MAKERS)
def test_tasks_of_a_configuration(tmp_path: Path, kind: str) -> None:
    sides = loaded(tmp_path, kind)
    assert [len(side) for side in sides] == [30, 9]
    originals = [{name.partition("@")[0] for name in used_classes(side)} for side in sides]
    assert [len(names) for names in originals] == [4, 2]
    assert not originals[0] & originals[1]
    assert len(used_classes(sides[0])) == 8
    for side in sides:
        assert side.pool.input_shape == (3, 8, 8)
        assert side.pool.pixels.dtype == np.uint8
        values = side.pool.values(side.tasks[0].support)
        pixels = side.pool.pixels[side.tasks[0].support].astype(float)
        pixels = 255 - pixels if kind == "omniglot" else pixels
        mean = np.array([0.5, 0.25, 0.0]).reshape(3, 1, 1)
        # Single precision.
        np.testing.assert_allclose(values, (pixels / 255 - mean) / 0.5, atol=1e-6)
    again = loaded(tmp_path, kind)
    assert [side.content_hash for side in again] == [side.content_hash for side in sides]


def test_a_data_set_elsewhere_gives_the_same_tasks(tmp_path: Path) -> None:
    hashes = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        hashes.append([s.content_hash for s in loaded(tmp_path / name, "image-folder")])
    assert hashes[0] == hashes[1]
