"""How large the cache may grow, and what goes when it has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.cache import GB, FactorCache, cache_limit, store
from metaaudit.cache.entry import write_entry
from metaaudit.cache.eviction import make_room
from metaaudit.cache.lock import locked
from metaaudit.errors import ConfigError
from tests.cache.cases import add, arrays, assert_same, get, refuse


def aged(folder: Path, count: int) -> list[Path]:
    """Entries of equal size, least recently used first."""
    paths = [add(folder, number) for number in range(count)]
    for number, path in enumerate(paths):
        os.utime(path, (1e9 + number, 1e9 + number))
    return paths


def present(paths: list[Path]) -> list[bool]:
    return [path.exists() for path in paths]


@pytest.mark.parametrize(
    ("text", "gigabytes"), [(None, 20), ("", 20), ("0.5", 0.5), ("1e3", 1000), ("inf", np.inf)]
)
def test_limit_is_given_in_gigabytes(
    monkeypatch: pytest.MonkeyPatch, text: str | None, gigabytes: float
) -> None:
    monkeypatch.delenv("METAAUDIT_CACHE_LIMIT_GB", raising=False)
    if text is not None:
        monkeypatch.setenv("METAAUDIT_CACHE_LIMIT_GB", text)
    assert cache_limit() == gigabytes * GB
    assert FactorCache(Path()).limit == gigabytes * GB


@pytest.mark.parametrize("text", ["0", "-1", "nan", "20 GB", "-inf", "abc"])
def test_bad_limit(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("METAAUDIT_CACHE_LIMIT_GB", text)
    with pytest.raises(ConfigError) as raised:
        FactorCache(Path())
    assert str(raised.value).startswith(f"METAAUDIT_CACHE_LIMIT_GB: is {text!r}; expected")


def test_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    paths = aged(tmp_path, 5)
    size = paths[0].stat().st_size
    get(FactorCache(tmp_path), refuse, {"number": 1})  # a use
    told: list[str] = []
    cache = FactorCache(tmp_path, limit=4 * size, say=told.append)
    get(cache, lambda: {"a": np.full(500, 9)}, {"number": 9})
    assert present(paths) == [False, True, False, True, True]
    assert cache.holds("gradients", {"number": 9})
    assert cache.warnings == []
    assert told == cache.notes
    (note,) = told
    assert "METAAUDIT_CACHE_LIMIT_GB" in note
    assert note.endswith(f": {paths[0].stem}, {paths[2].stem}")
    assert not paths[0].with_suffix(".lock").exists()


def test_below_the_limit_nothing_goes(tmp_path: Path) -> None:
    paths = aged(tmp_path, 3)
    cache = FactorCache(tmp_path, limit=4 * paths[0].stat().st_size)
    get(cache, lambda: {"a": np.full(500, 9)}, {"number": 9})
    assert all(present(paths))
    assert cache.notes == []


def test_damaged_and_unfinished_files_count_and_go_first(tmp_path: Path) -> None:
    paths = aged(tmp_path, 2)
    size = paths[0].stat().st_size
    left = [
        tmp_path / f"gradients-{'0' * 32}.damaged",
        tmp_path / f".gradients-{'1' * 32}.h5.01234567",
    ]
    for path in left:
        path.write_bytes(bytes(size))
    get(FactorCache(tmp_path, limit=3 * size), lambda: {"a": np.full(500, 9)}, {"number": 9})
    assert present(paths) == [True, True]
    assert present(left) == [False, False]


def test_entry_that_is_held_stays(tmp_path: Path) -> None:
    paths = aged(tmp_path, 3)
    cache = FactorCache(tmp_path, limit=2 * paths[0].stat().st_size)
    with locked(paths[0], lambda _: None):
        get(cache, lambda: {"a": np.full(500, 9)}, {"number": 9})
    assert present(paths) == [True, False, False]
    assert cache.warnings == []


def test_entry_that_was_just_written_stays(tmp_path: Path) -> None:
    paths = aged(tmp_path, 2)
    os.utime(paths[0], (2e9, 2e9))
    os.utime(paths[1], (2e9, 2e9))  # as if the clock went back since
    cache = FactorCache(tmp_path, limit=paths[0].stat().st_size)
    get(cache, lambda: {"a": np.full(500, 9)}, {"number": 9})
    assert present(paths) == [False, False]
    assert cache.holds("gradients", {"number": 9})


def test_entry_that_was_used_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = aged(tmp_path, 3)
    from metaaudit.cache import eviction

    listed = eviction.items

    def then_used(folder: Path) -> object:
        found = listed(folder)
        os.utime(paths[0])
        paths[1].unlink()
        return found

    monkeypatch.setattr(eviction, "items", then_used)
    gone = make_room(tmp_path, 2 * paths[2].stat().st_size)
    # The second is gone already, which is room enough.
    assert [item.path for item in gone] == [paths[1]]
    assert present(paths) == [True, False, True]


@pytest.mark.parametrize("limit", [100, 2000], ids=["arrays alone", "arrays and their file"])
def test_entry_larger_than_the_limit_is_kept_out(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = aged(tmp_path, 1)
    assert sum(values.nbytes for values in arrays().values()) < 2000
    begun: list[Path] = []

    def counted(path: Path, *args: Any) -> None:
        begun.append(path)
        write_entry(path, *args)

    monkeypatch.setattr(store, "write_entry", counted)
    cache = FactorCache(tmp_path, limit=limit)
    assert_same(get(cache), arrays())
    assert len(begun) == (limit == 2000)  # a disk is not filled for nothing
    assert cache.uses["x"].status == "computed"
    (warning,) = cache.warnings
    assert "was not written (" in warning
    assert "raise METAAUDIT_CACHE_LIMIT_GB" in warning
    assert path.exists()
    assert list(tmp_path.glob("*.h5")) == [path]
    assert cache.notes == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
