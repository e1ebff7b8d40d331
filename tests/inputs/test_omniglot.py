"""Omniglot: made-up alphabets in every layout, and the real ones where they are."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaaudit.config.schema import (
    EpisodeConfig,
    EvalSplitConfig,
    ImageConfig,
    OmniglotConfig,
    TrainSplitConfig,
)
from metaaudit.errors import TaskSetError
from metaaudit.inputs.omniglot import load_omniglot
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks

Files = dict[str, bytes]

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_omniglot = pytest.mark.skipif(
    not (DATA / "omniglot").is_dir(),
    reason=f"no Omniglot at {DATA / 'omniglot'} (set METAAUDIT_DATA)",
)


def png(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 2, (21, 21)).astype(bool)).save(stream, "PNG")
    return stream.getvalue()


def alphabets(images: int = 4) -> Files:
    rng = np.random.default_rng(0)
    return {
        f"{alphabet}/character{character:02d}/{character:04d}_{drawer:02d}.png": png(rng)
        for alphabet in ("Aleph", "Bet")
        for character in range(1, 5)
        for drawer in range(images)
    }


def as_folder(root: Path, files: Files) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def as_zip(path: Path, files: Files, prefix: str = "small1/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(prefix + name, data)
    return path


def config(root: Path, **options: int) -> OmniglotConfig:
    sizes = {"train": 6, "eval": 3, "classes": 5, "eval_seed": 1, "ways": 3, "shots": 2} | options
    return OmniglotConfig(
        format="omniglot",
        root=root,
        image=ImageConfig(size=14, invert=True),
        episode=EpisodeConfig(ways=sizes["ways"], shots=sizes["shots"], queries=1),
        train=TrainSplitConfig(tasks=sizes["train"], classes=sizes["classes"], seed=0),
        eval=EvalSplitConfig(tasks=sizes["eval"], seed=sizes["eval_seed"]),
    )


def hashes(tasks: tuple[TaskSet, TaskSet]) -> list[str]:
    return [task_set.content_hash for task_set in tasks]


def test_every_layout_gives_the_same_tasks(tmp_path: Path) -> None:
    files = alphabets()
    aleph = {name: data for name, data in files.items() if name.startswith("Aleph")}
    backwards = dict(reversed(files.items()))
    as_zip(tmp_path / "zips" / "1.zip", aleph)
    as_zip(tmp_path / "zips" / "2.zip", backwards, "small2/")
    as_zip(tmp_path / "mixed" / "1.zip", aleph)
    junk = {"__MACOSX/a/b/c.png": b"?", "Aleph/character01/._x.png": b"?", "readme.txt": b"?"}
    roots = [
        as_folder(tmp_path / "direct", files),
        as_folder(tmp_path / "extracted" / "images_background_small1", files).parent,
        as_zip(tmp_path / "one.zip", backwards),
        as_zip(tmp_path / "bare.zip", files | junk, ""),
        tmp_path / "zips",
        as_folder(tmp_path / "mixed", files),
    ]
    expected = hashes(load_omniglot(config(roots[0])))
    for root in roots[1:]:
        assert hashes(load_tasks(config(root))) == expected, root


def test_tasks_are_well_formed(tmp_path: Path) -> None:
    train, evaluation = load_omniglot(config(as_folder(tmp_path, alphabets())))
    assert [train.task_ids[0], evaluation.task_ids[-1]] == ["train-s0-00000", "eval-s1-00002"]
    names = [
        {name for task in part.tasks for name in task.class_names} for part in (train, evaluation)
    ]
    assert not names[0] & names[1]
    for part in (train, evaluation):
        assert len(set(part.pool.ids)) == len(part.pool.ids) == len(part.pool.pixels)
        used = {int(row) for task in part.tasks for row in (*task.support, *task.query)}
        assert used == set(range(len(part.pool.ids)))
        for task in part.tasks:
            assert task.shape == (6, 3)
            assert len({*task.support.tolist(), *task.query.tolist()}) == 9
            for rows, labels in ((task.support, task.support_y), (task.query, task.query_y)):
                for row, label in zip(rows, labels, strict=True):
                    assert part.pool.ids[row].startswith(task.class_names[label] + "/")
    assert train.pool.pixels.shape[1:] == (1, 14, 14)
    assert train.pool.pixels.dtype == np.uint8


def test_a_task_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    root = as_folder(tmp_path, alphabets())
    few, many = (load_omniglot(config(root, train=n, eval=n)) for n in (2, 9))
    for part, whole in zip(few, many, strict=True):
        assert part.content_hash == whole.select([0, 1]).content_hash


def test_streams_differ_even_with_equal_seeds(tmp_path: Path) -> None:
    root = as_folder(tmp_path, alphabets())
    train, evaluation = load_omniglot(config(root, classes=4, eval_seed=0, train=20, eval=20))
    sides = []
    for part in (train, evaluation):
        order = sorted({name for task in part.tasks for name in task.class_names})
        sides.append([[order.index(name) for name in task.class_names] for task in part.tasks])
    assert sides[0] != sides[1]


BAD = [
    ({"ways": 3, "classes": 2}, "2 classes are too few for tasks of 3"),
    ({"classes": 6}, "8 classes; 6 for training leave 2 for evaluation"),
    ({"classes": 9}, "leave 0 for evaluation"),
    ({"shots": 4}, r"class 'Aleph/character01' has 4 images; expected at least 5"),
]


@pytest.mark.parametrize(("sizes", "part"), BAD)
def test_too_small_for_the_configuration(tmp_path: Path, sizes: dict[str, int], part: str) -> None:
    with pytest.raises(TaskSetError, match=part):
        load_omniglot(config(as_folder(tmp_path, alphabets()), **sizes))


def broken_roots(folder: Path) -> dict[str, Path]:
    files = alphabets()
    whole = as_zip(folder / "whole.zip", files).read_bytes()
    (folder / "empty").mkdir()
    (folder / "text.zip").write_text("no zip")
    (folder / "cut.zip").write_bytes(whole[:-100])
    flipped = bytearray(whole)
    flipped[len("small1/Aleph/character01/0001_00.png") + 60] ^= 0xFF
    (folder / "flipped.zip").write_bytes(flipped)
    return {
        "does not exist": folder / "missing",
        "holds no images": folder / "empty",
        "text.zip: is no readable zip": folder / "text.zip",
        "cut.zip: is no readable zip": folder / "cut.zip",
        "flipped.zip: is damaged at small1/Aleph/character01/0001_00.png": folder / "flipped.zip",
        "leads outside": as_zip(folder / "up.zip", files, "../"),
        r"leads outside it \('/abs": as_zip(folder / "abs.zip", files, "/abs/"),
        r"leads outside it \('C:": as_zip(folder / "drive.zip", files, "C:/x/"),
    }


def test_broken_root_gives_one_line(tmp_path: Path) -> None:
    for part, root in broken_roots(tmp_path).items():
        with pytest.raises(TaskSetError, match=part) as caught:
            load_omniglot(config(root, train=50))
        assert "\n" not in str(caught.value)


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    files = dict.fromkeys(alphabets(), b"no image")
    with pytest.raises(TaskSetError, match=r"character\d\d/\d{4}_\d\d.png: is no readable image"):
        load_omniglot(config(as_folder(tmp_path, files)))


def test_copies_must_be_equal(tmp_path: Path) -> None:
    files = alphabets()
    as_zip(tmp_path / "a.zip", dict(zip(files, reversed(files.values()), strict=True)))
    with pytest.raises(TaskSetError, match="differs from"):
        load_omniglot(config(as_folder(tmp_path, files)))


@needs_omniglot
def test_real_omniglot() -> None:
    both = OmniglotConfig(
        format="omniglot",
        root=DATA / "omniglot",
        train=TrainSplitConfig(tasks=3, classes=237),
        eval=EvalSplitConfig(tasks=2),
    )
    train, evaluation = load_omniglot(both)
    assert train.pool.pixels.shape == (150, 1, 28, 28)
    values = train.pool.values(train.tasks[0].support)
    assert 0.02 < values.mean() < 0.2  # bright strokes on black
    assert len({name for task in evaluation.tasks for name in task.class_names}) == 5
    with pytest.raises(TaskSetError, match="holds 242 classes"):
        load_omniglot(both.model_copy(update={"train": TrainSplitConfig(tasks=1, classes=238)}))


@needs_omniglot
def test_real_omniglot_extracted(tmp_path: Path) -> None:
    with zipfile.ZipFile(DATA / "omniglot" / "images_background_small1.zip") as archive:
        archive.extractall(tmp_path)
    sampled = [
        OmniglotConfig(
            format="omniglot",
            root=root,
            train=TrainSplitConfig(tasks=2, classes=100),
            eval=EvalSplitConfig(tasks=2),
        )
        for root in (tmp_path, DATA / "omniglot" / "images_background_small1.zip")
    ]
    assert hashes(load_omniglot(sampled[0])) == hashes(load_omniglot(sampled[1]))
