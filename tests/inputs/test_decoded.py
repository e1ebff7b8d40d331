"""The cache of decoded images: what it saves, and that it never gives what is no longer so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.cache import items
from metaaudit.errors import TaskSetError
from metaaudit.inputs import decoded, images
from metaaudit.inputs.image_folder import image_folder_source
from metaaudit.inputs.images import decode_image
from metaaudit.inputs.source import Pixels
from metaaudit.inputs.tasks import load_tasks
from tests.inputs.pictures import as_folder, as_zip, config, encoded, pictures

CLASSES = ("a", "b", "c", "d")
FILES = pictures(CLASSES)
IDS = list(FILES)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Caches even a few images; says how many were decoded since it was last asked."""
    calls = 0

    def counted(*args: Any) -> Pixels:
        nonlocal calls
        calls += 1
        return decode_image(*args)

    def since() -> int:
        nonlocal calls
        found, calls = calls, 0
        return found

    monkeypatch.setattr(decoded, "MIN_CACHED", 2)
    monkeypatch.setattr(decoded, "decode_image", counted)
    return since


def read(root: Path, ids: list[str] = IDS, **image: Any) -> Pixels:
    return image_folder_source(config(root=root, image=image)).read(ids)


def right(image_id: str, data: bytes) -> Pixels:
    return decode_image(data, None, image_id, "rgb")


def made(kind: str, folder: Path, files: dict[str, bytes]) -> Path:
    if kind == "zip":
        return as_zip(folder / "set.zip", files, "")
    return as_folder(folder / "set", files)


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_images_are_decoded_once(
    tmp_path: Path, cache_dir: Path, count: Callable[[], int], kind: str
) -> None:
    root = made(kind, tmp_path, FILES)
    first = read(root)
    assert count() == len(IDS)
    again = read(root)
    assert count() == 0
    assert again.dtype == np.uint8
    assert np.array_equal(first, again)
    for pixels, (image_id, data) in zip(again, FILES.items(), strict=True):
        assert np.array_equal(pixels, right(image_id, data))
    assert [item.name for item in items(cache_dir)] == ["images"]


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_images_in_another_order_or_number(
    tmp_path: Path, count: Callable[[], int], kind: str
) -> None:
    root = made(kind, tmp_path, FILES)
    whole = read(root)
    assert np.array_equal(read(root, IDS[::-1]), whole[::-1])
    assert np.array_equal(read(root, IDS[3:9]), whole[3:9])
    assert count() == 2 * len(IDS) + 6


@pytest.mark.parametrize("image", [{"size": 4}, {"size": 6}, {"colour": "grey"}])
def test_other_options_are_decoded_anew(
    tmp_path: Path, count: Callable[[], int], image: dict[str, Any]
) -> None:
    root = made("zip", tmp_path, FILES)
    read(root)
    count()
    size, colour = image.get("size"), image.get("colour", "rgb")
    for _ in range(2):
        found = read(root, **image)
        expected = decode_image(FILES[IDS[3]], size, "", colour)
        assert np.array_equal(found[3], expected)
    assert count() == len(IDS)
    # What is done with the pixels later does not count.
    read(root, **image, scale=1.0, mean=[0.5], invert=True)
    assert count() == 0


CHANGED = encoded(np.full((6, 6, 3), 7, dtype=np.uint8))


def swap_two(root: Path) -> None:
    one, two = root / IDS[0], root / IDS[1]
    one.rename(root / "x")
    two.rename(one)
    (root / "x").rename(two)


def put_back_the_times(root: Path) -> None:
    path = root / IDS[0]
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # of a pixel
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / IDS[0]).write_bytes(CHANGED),
    "swapped": swap_two,
    "same size and time": put_back_the_times,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_are_decoded_anew(
    tmp_path: Path, count: Callable[[], int], change: str
) -> None:
    rng = np.random.default_rng(0)
    bitmaps = {i: encoded(rng.integers(0, 256, (6, 6, 3), np.uint8), "BMP") for i in IDS}
    root = as_folder(tmp_path / "set", bitmaps)
    first = read(root)
    count()
    CHANGES[change](root)
    found = read(root)
    assert count() == len(IDS)
    assert not np.array_equal(found[0], first[0])
    for pixels, image_id in zip(found, IDS, strict=True):
        assert np.array_equal(pixels, right(image_id, (root / image_id).read_bytes()))


def test_a_zip_with_one_other_image_is_decoded_anew(
    tmp_path: Path, count: Callable[[], int]
) -> None:
    root = made("zip", tmp_path, FILES)
    first = read(root)
    times = root.stat()
    count()
    changed = FILES | {IDS[5]: CHANGED}
    made("zip", tmp_path, changed)
    os.utime(root, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = read(root)
    assert count() == len(IDS)
    assert np.array_equal(found[5], right(IDS[5], CHANGED))
    assert np.array_equal(np.delete(found, 5, 0), np.delete(first, 5, 0))


def test_the_same_zip_elsewhere_is_not(tmp_path: Path, count: Callable[[], int]) -> None:
    read(made("zip", tmp_path, FILES))
    count()
    time.sleep(0.01)
    backwards = dict(reversed(FILES.items()))
    assert len(read(made("zip", tmp_path / "other", backwards))) == len(IDS)
    assert count() == 0


def test_folders_of_the_same_names_are_told_apart(tmp_path: Path, count: Callable[[], int]) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for shade, root in enumerate(roots):
        bitmap = encoded(np.full((6, 6, 3), shade, dtype=np.uint8), "BMP")
        as_folder(root, dict.fromkeys(IDS, bitmap))
        for path in root.rglob("*.png"):
            os.utime(path, (1, 1))
    for shade, root in enumerate(roots):
        assert (read(root) == shade).all()


def test_copies_are_compared_when_one_comes(tmp_path: Path, count: Callable[[], int]) -> None:
    root = made("folder", tmp_path, FILES)
    read(root)
    as_zip(root / "copies.zip", FILES, "")
    read(root)
    assert count() == 2 * len(IDS)  # the copies are read and not decoded
    as_zip(root / "copies.zip", FILES | {IDS[2]: CHANGED}, "")
    with pytest.raises(TaskSetError, match=r"a/2.png: differs from|differs from .*a/2.png"):
        read(root)


@pytest.mark.parametrize("part", ["code", "library"])
def test_another_version_decodes_anew(
    tmp_path: Path, count: Callable[[], int], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    root = made("zip", tmp_path, FILES)
    read(root)
    count()
    if part == "code":
        copy = tmp_path / "images.py"
        copy.write_text(Path(images.__file__).read_text() + "\n")
        monkeypatch.setattr(images, "__file__", str(copy))
    else:
        monkeypatch.setattr(images.features, "version", lambda name: "99")
    read(root)
    assert count() == len(IDS)


def test_a_damaged_entry_is_decoded_anew_with_a_warning(
    tmp_path: Path, cache_dir: Path, count: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = made("zip", tmp_path, FILES)
    first = read(root)
    count()
    assert capsys.readouterr().err == ""
    (item,) = items(cache_dir)
    damaged = bytearray(item.path.read_bytes())
    place = damaged.index(first[0].tobytes()[:40])
    damaged[place] ^= 0xFF
    item.path.write_bytes(damaged)
    found = read(root)
    assert count() == len(IDS)
    assert np.array_equal(found, first)
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("warning: cache file images-")
    assert "was damaged" in told
    read(root)
    assert count() == 0
    assert capsys.readouterr().err == ""


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, count: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    root = made("zip", tmp_path, FILES)
    assert np.array_equal(read(root)[3], right(IDS[3], FILES[IDS[3]]))
    assert count() == len(IDS)


def test_few_images_are_not_cached(tmp_path: Path, cache_dir: Path) -> None:
    read(made("zip", tmp_path, FILES))
    assert len(IDS) < decoded.MIN_CACHED
    assert not cache_dir.exists()


def test_nothing_is_cached_of_images_that_cannot_be_read(
    tmp_path: Path, cache_dir: Path, count: Callable[[], int]
) -> None:
    root = made("zip", tmp_path, FILES | {IDS[7]: b"?"})
    with pytest.raises(TaskSetError, match="is no readable image"):
        read(root)
    assert all(not item.size for item in items(cache_dir))


def test_a_file_that_goes_away_is_named(tmp_path: Path, count: Callable[[], int]) -> None:
    root = made("folder", tmp_path, FILES)
    of = image_folder_source(config(root=root))
    (root / IDS[4]).unlink()
    with pytest.raises(TaskSetError, match=f"{IDS[4]}: cannot be read"):
        of.read(IDS)


def test_tasks_are_the_same_with_and_without(tmp_path: Path, count: Callable[[], int]) -> None:
    root = made("zip", tmp_path, pictures([f"c{n}" for n in range(8)]))
    asked = config(root=root, rotations=[90], train={"classes": 4})
    hashes = [[side.content_hash for side in load_tasks(asked)] for _ in range(2)]
    assert 0 < count() <= 32
    assert hashes[0] == hashes[1]
