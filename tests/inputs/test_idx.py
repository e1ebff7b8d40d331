"""Pairs of idx files: made-up ones, damaged ones, and MNIST's where it is."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from metaaudit.config.tasks import IdxConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.idx import idx_source
from metaaudit.inputs.images import resized
from metaaudit.inputs.sampling import sample_tasks
from metaaudit.inputs.tasks import load_tasks
from tests.inputs.pictures import DATA, config, used_classes, used_images

Bytes = npt.NDArray[np.uint8]

needs_mnist = pytest.mark.skipif(
    not (DATA / "mnist").is_dir(), reason=f"no MNIST at {DATA / 'mnist'} (set METAAUDIT_DATA)"
)


def idx(array: Any, kind: int = 8) -> bytes:
    """An idx file of these numbers."""
    array = np.asarray(array, dtype=np.uint8)
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


def images(n: int = 40, side: int = 5, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


def labels(n: int = 40, classes: int = 4) -> Bytes:
    return (np.arange(n) % classes).astype(np.uint8)


def write(folder: Path, prefix: str, pixels: Any, of: Any, suffix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prefix}-images-idx3-ubyte{suffix}"
    pack = gzip.compress if suffix else bytes
    path.write_bytes(pack(idx(pixels)))
    (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(of)))
    return path


def asked(root: Path, **changes: Any) -> IdxConfig:
    found = config("idx", root, **{"train": {"classes": 2}, **changes})
    assert isinstance(found, IdxConfig)
    return found


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("as_file", [False, True])
def test_pixels_and_labels(tmp_path: Path, suffix: str, as_file: bool) -> None:
    path = write(tmp_path, "t10k", images(), labels(), suffix)
    of = idx_source(asked(path if as_file else tmp_path))
    assert list(of.classes) == ["0", "1", "2", "3"]
    assert of.classes["1"][:2] == ["t10k-images-idx3-ubyte/1", "t10k-images-idx3-ubyte/5"]
    assert of.splits == {}
    rows = [39, 0, 17]
    found = of.read([f"t10k-images-idx3-ubyte/{row}" for row in rows])
    assert np.array_equal(found, images()[rows][:, np.newaxis])


def test_all_pairs_of_a_folder_are_pooled(tmp_path: Path) -> None:
    write(tmp_path, "train", images(seed=1), labels(classes=3))
    write(tmp_path, "t10k", images(seed=2), labels() + 252, ".gz")
    # torchvision leaves the .gz beside the file that it unpacks.
    write(tmp_path, "train", images(seed=3), labels(), ".gz")
    of = idx_source(asked(tmp_path))
    assert list(of.classes) == ["0", "1", "2", "252", "253", "254", "255"]
    ids = ["train-images-idx3-ubyte/3", "t10k-images-idx3-ubyte/8", "train-images-idx3-ubyte/0"]
    expected = [images(seed=1)[3], images(seed=2)[8], images(seed=1)[0]]
    assert np.array_equal(of.read(ids)[:, 0], expected)


@pytest.mark.parametrize(
    ("images_name", "labels_name"),
    [
        ("emnist-images-train-images-idx3-ubyte.gz", "emnist-images-train-labels-idx1-ubyte"),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte.gz"),
    ],
)
def test_other_names_of_pairs(tmp_path: Path, images_name: str, labels_name: str) -> None:
    for name, data in ((images_name, idx(images())), (labels_name, idx(labels()))):
        packed = gzip.compress(data) if name.endswith(".gz") else data
        (tmp_path / name).write_bytes(packed)
    assert len(idx_source(asked(tmp_path)).classes) == 4


def test_images_are_resized_and_coloured(tmp_path: Path) -> None:
    write(tmp_path, "a", images(side=5), labels())
    write(tmp_path, "b", images(side=7), labels())
    ids = ["b-images-idx3-ubyte/2", "a-images-idx3-ubyte/1"]
    found = idx_source(asked(tmp_path, image={"size": 9, "colour": "rgb"})).read(ids)
    assert found.shape == (2, 3, 9, 9)
    for row, pixels in enumerate((images(side=7)[2], images(side=5)[1])):
        assert np.array_equal(found[row], resized(pixels[None, None], 9, "rgb")[0])
    part = r"b-images-idx3-ubyte: holds images of 7x7, and .*a-images-idx3-ubyte of 5x5; .*size"
    with pytest.raises(TaskSetError, match=part):
        idx_source(asked(tmp_path)).read(ids[::-1])


def test_large_files_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a", images(n=23), labels(n=23))
    rows = [22, 3, 4, 11, 0, 12]
    ids = [f"a-images-idx3-ubyte/{row}" for row in rows]
    for block in (1, 25, 100, 10**6):
        monkeypatch.setattr("metaaudit.inputs.idx_files._BLOCK_BYTES", block)
        assert np.array_equal(idx_source(asked(tmp_path)).read(ids)[:, 0], images(n=23)[rows])


def bomb(claimed: int) -> bytes:
    """A few kilobytes that are 100 megabytes, of which the header claims so many images."""
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", claimed, 5, 5)
    return gzip.compress(header + bytes(100_000_000), compresslevel=9)


def flipped(data: bytes, place: int) -> bytes:
    damaged = bytearray(data)
    damaged[place] ^= 0xFF
    return bytes(damaged)


WHOLE = idx(images())
BAD_IMAGES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("", lambda: b"", "begins with nothing; expected 00 00 08 03, an idx file"),
    "text": ("", lambda: b"P5 some image", "begins with 50 35 20 73"),
    "labels": ("", lambda: idx(labels()), "begins with 00 00 08 01"),
    "floats": ("", lambda: idx(images(), kind=0x0D), "begins with 00 00 0d 03"),
    "header": ("", lambda: WHOLE[:10], "ends within its header"),
    "truncated": ("", lambda: WHOLE[:-1], r"holds less than its header says; expected shape \[40"),
    "longer": ("", lambda: WHOLE + b"x", "holds more than its header says"),
    "no images": ("", lambda: idx(np.zeros((0, 5, 5))), r"claims the shape \[0, 5, 5\]"),
    "huge": (
        "",
        lambda: bytes([0, 0, 8, 3]) + b"\xff" * 12,
        r"claims the shape \[4294967295, 4294967295, 4294967295\]; expected 1 to 4294967296 bytes",
    ),
    "no gzip": (".gz", lambda: WHOLE, "cannot be read"),
    "cut gzip": (".gz", lambda: gzip.compress(WHOLE)[:-20], "cannot be read"),
    "gzip without its end": (".gz", lambda: gzip.compress(WHOLE)[:-2], "cannot be read"),
    "wrong checksum": (".gz", lambda: flipped(gzip.compress(WHOLE), -6), "cannot be read .*CRC"),
    "flipped": (".gz", lambda: flipped(gzip.compress(WHOLE), 300), "cannot be read"),
    "bomb": (".gz", lambda: bomb(40), "holds more than its header says"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_damaged_images_give_one_line(tmp_path: Path, case: str) -> None:
    suffix, make, part = BAD_IMAGES[case]
    path = write(tmp_path, "x", images(), labels(), suffix)
    path.write_bytes(make())
    with pytest.raises(TaskSetError, match=part) as caught:
        load_tasks(asked(tmp_path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    class Counting(gzip.GzipFile):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal read
            data = super().read(size)
            read += len(data)
            return data

    path = write(tmp_path, "x", images(), labels(), ".gz")
    path.write_bytes(bomb(40))
    monkeypatch.setattr(gzip, "GzipFile", Counting)
    with pytest.raises(TaskSetError):
        load_tasks(asked(tmp_path))
    assert read < 5000


BAD_PAIRS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no labels": (
        lambda path: path.unlink(),
        "x-images-idx3-ubyte: has no labels beside it; expected x-labels-idx1-ubyte, .gz or not",
    ),
    "fewer": (
        lambda path: path.write_bytes(idx(labels()[1:])),
        "x-labels-idx1-ubyte: holds 39 labels; expected 40, as x-images-idx3-ubyte has images",
    ),
    "truncated": (lambda path: path.write_bytes(idx(labels())[:-3]), "holds less than its header"),
    "two dimensions": (
        lambda path: path.write_bytes(idx(labels().reshape(8, 5))),
        "begins with 00 00 08 02; expected 00 00 08 01",
    ),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_labels_that_do_not_fit_give_one_line(tmp_path: Path, case: str) -> None:
    damage, part = BAD_PAIRS[case]
    write(tmp_path, "x", images(), labels())
    damage(tmp_path / "x-labels-idx1-ubyte")
    with pytest.raises(TaskSetError, match=part):
        idx_source(asked(tmp_path))


def test_other_roots_give_one_line(tmp_path: Path) -> None:
    with pytest.raises(TaskSetError, match="does not exist"):
        idx_source(asked(tmp_path / "none"))
    with pytest.raises(TaskSetError, match=r"holds no images; expected \*-images-idx3-ubyte files"):
        idx_source(asked(tmp_path))
    (tmp_path / "digits").write_bytes(WHOLE)
    with pytest.raises(TaskSetError, match="digits: has no labels beside it"):
        idx_source(asked(tmp_path / "digits"))


@pytest.mark.parametrize(
    ("classes", "rotations", "merged"),
    [
        (10, [], False),
        (10, [90], False),
        (10, [270], False),
        (10, [180], True),
        (10, [90, 180, 270], True),
        (10, [90, 270], True),  # half a turn apart
        (11, [180], False),  # no digits
    ],
)
def test_digits_that_look_alike(
    tmp_path: Path, classes: int, rotations: list[int], merged: bool
) -> None:
    write(tmp_path, "x", images(n=88), labels(n=88, classes=classes))
    kinds = idx_source(asked(tmp_path, rotations=rotations)).kinds
    assert (kinds["6"] == kinds["9"]) is merged
    assert len(set(kinds.values())) == classes - merged


def test_no_task_has_two_turns_of_a_digit_or_a_6_and_a_9(tmp_path: Path) -> None:
    write(tmp_path, "x", images(n=200, side=2), labels(n=200, classes=10))
    settings = {"episode": {"ways": 9}, "train": {"tasks": 300}, "eval": {"images": 0.5}}
    of = asked(tmp_path, rotations=[90, 180, 270], **settings)
    train, _ = load_tasks(of)
    for task in train.tasks:
        digits = [name.partition("@")[0] for name in task.class_names]
        assert len({"6 or 9" if digit in "69" else digit for digit in digits}) == 9
    assert len(used_classes(train)) == 40
    with pytest.raises(TaskSetError, match="40 classes, 9 where those that look alike are one"):
        load_tasks(of.model_copy(update={"episode": of.episode.model_copy(update={"ways": 10})}))


def test_a_6_is_not_trained_on_where_a_9_is_evaluated(tmp_path: Path) -> None:
    write(tmp_path, "x", images(n=200, side=2), labels(n=200, classes=10))
    for seed in range(8):
        for rotations in ([], [180]):
            settings = {"train": {"classes": 5, "seed": seed, "tasks": 40}, "eval": {"tasks": 40}}
            of = asked(tmp_path, rotations=rotations, **settings)
            sides = [used_classes(side) for side in load_tasks(of)]
            digits = [{name.partition("@")[0] for name in side} for side in sides]
            if rotations:
                assert not ({"6", "9"} & digits[0] and {"6", "9"} & digits[1])
            else:
                assert digits[0] | digits[1] == set("0123456789")


@needs_mnist
def test_mnist() -> None:
    settings = {"episode": {"ways": 5, "shots": 5, "queries": 5}, "train": {"classes": 5}}
    of = asked(DATA / "mnist", **{**settings, "train": {"classes": 5, "tasks": 20}})
    train, evaluation = load_tasks(of)
    assert train.pool.input_shape == (1, 28, 28)
    assert 0.1 < train.pool.values(train.tasks[0].support).mean() < 0.2  # bright on black
    assert len(used_classes(train)) == len(used_classes(evaluation)) == 5
    assert not used_classes(train) & used_classes(evaluation)
    assert not used_images(train) & used_images(evaluation)
    of = asked(DATA / "mnist", rotations=[90], **{**settings, "train": {"classes": 5, "tasks": 3}})
    turned, _ = sample_tasks(idx_source(of), of)
    row = next(i for i, image_id in enumerate(turned.pool.ids) if image_id.endswith("@90"))
    upright = idx_source(of).read([turned.pool.ids[row].removesuffix("@90")])
    assert np.array_equal(turned.pool.pixels[row, 0], np.rot90(upright[0, 0]))
