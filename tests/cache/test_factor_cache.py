"""The factor cache: what it may return, and what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.cache import Arrays, FactorCache
from metaaudit.errors import RunError
from tests.cache.cases import KEY, arrays, assert_same, get, only_file, refuse

CHANGED: list[dict[str, Any]] = [
    {"weights": "a" * 63 + "b"},
    {"dtype": "float64"},
    {"learner": {"name": "maml", "inner_lr": 0.4, "steps": 4}},
    {"learner": {"name": "maml", "inner_lr": 0.4000000000000001, "steps": 3}},
    {"source": "null"},
    {"one more": 1},
]


def test_second_request_reads_what_the_first_computed(tmp_path: Path) -> None:
    first = FactorCache(tmp_path)
    assert not first.holds("gradients", KEY)
    assert_same(get(first), arrays())
    assert first.uses["x"].status == "computed"
    assert first.holds("gradients", KEY)

    second = FactorCache(tmp_path)
    assert_same(get(second, refuse), arrays())
    assert second.uses["x"].status == "hit"
    assert second.uses["x"].key == first.uses["x"].key
    assert second.warnings == []


def test_order_of_the_key_does_not_matter(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    assert_same(get(FactorCache(tmp_path), refuse, dict(reversed(KEY.items()))), arrays())


@pytest.mark.parametrize("change", CHANGED, ids=[str(change) for change in CHANGED])
def test_any_other_dependency_misses(tmp_path: Path, change: dict[str, Any]) -> None:
    cache = FactorCache(tmp_path)
    get(cache)
    other = {"other": np.ones(2)}
    assert_same(get(cache, lambda: other, KEY | change), other)
    assert_same(get(cache, refuse), arrays())


def test_another_name_misses(tmp_path: Path) -> None:
    cache = FactorCache(tmp_path)
    get(cache)
    other = {"other": np.ones(2)}
    assert_same(cache.get("crossfit", KEY, lambda: other, label="x"), other)


def test_hit_is_the_last_use(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    os.utime(path, (1e9, 1e9))
    get(FactorCache(tmp_path), refuse)
    assert path.stat().st_mtime > 1e9


def test_summary_has_a_line_for_each_request_in_their_order(tmp_path: Path) -> None:
    cache = FactorCache(tmp_path)
    get(cache, label="gradients")
    get(cache, refuse, label="again")
    cache.get("crossfit", KEY, arrays, label="a third")
    for label, status, seconds, saved in (
        ("gradients", "computed", 61.23, 0.0),
        ("again", "hit", 0.1, 12.34),
    ):
        assert cache.uses[label].status == status
        use = cache.uses[label]
        cache.uses[label] = replace(use, seconds=seconds, saved_s=saved)
    assert cache.summary() == [
        "gradients: computed in 61.2 s",
        "again: reused (12.3 s saved)",
        f"a third: computed in {cache.uses['a third'].seconds:.1f} s",
    ]


def test_saved_time_is_that_of_computing(tmp_path: Path) -> None:
    def slow() -> Arrays:
        time.sleep(0.3)
        return arrays()

    get(FactorCache(tmp_path), slow)
    cache = FactorCache(tmp_path)
    get(cache, refuse)
    use = cache.uses["x"]
    assert 0.29 < use.seconds + use.saved_s < 3


@pytest.mark.parametrize("name", ["", "a b", "../a", ".a", "a.b", "1"])
def test_name_that_the_folder_would_not_know_again(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        FactorCache(tmp_path).get(name, KEY, refuse, label="x")


def test_failed_computation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Arrays:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(FactorCache(tmp_path), fail)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    assert_same(get(FactorCache(tmp_path)), arrays())


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
import h5py
import numpy as np
from metaaudit.cache import FactorCache

create = h5py.Group.create_dataset
def create_and_die(self, name, **options):
    create(self, name, **options)
    self.file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

h5py.Group.create_dataset = create_and_die
FactorCache(Path(sys.argv[1])).get("gradients", {}, lambda: {"a": np.ones(3)}, label="x")
"""


@pytest.mark.slow
def test_killed_writer_leaves_no_entry(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, tmp_path], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert any(tmp_path.iterdir()), "the writer was killed before it began"
    assert list(tmp_path.glob("*.h5")) == []
    cache = FactorCache(tmp_path)
    assert not cache.holds("gradients", {})
    assert_same(get(cache, key={}), arrays())  # and the dead writer's lock does not block
    assert cache.warnings == []


def test_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"factor cache cannot be written.*METAAUDIT_CACHE_DIR"):
        get(FactorCache(tmp_path / "file"), refuse)


LIMITED_WRITER = """
import resource, sys
from pathlib import Path
import numpy as np
from metaaudit.cache import FactorCache

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
cache = FactorCache(Path(sys.argv[1]))
values = np.arange(20_000.0).reshape(50, 400)
found = cache.get("gradients", {}, lambda: {"a": values}, label="x")
assert (found["a"] == values).all()
assert cache.uses["x"].status == "computed"
print(*cache.warnings)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_arrays_outlive_a_full_disk(tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-c", LIMITED_WRITER, tmp_path, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "was not written ([Errno 27] File too large)" in done.stdout
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}


def test_arrays_outlive_a_folder_that_became_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", deny)
    cache = FactorCache(tmp_path)
    assert_same(get(cache), arrays())
    assert len(cache.warnings) == 1
    assert "was not written" in cache.warnings[0]
    assert "Permission denied" in cache.warnings[0]
