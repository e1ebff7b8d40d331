"""What the cache counts as its own, and what clearing leaves."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from metaaudit.cache import FactorCache, clear, items
from metaaudit.errors import RunError
from tests.cache.cases import (
    KEY,
    add,
    arrays,
    assert_same,
    get,
    held_by_another_process,
    only_file,
    refuse,
)
from tests.small import files

STEM = f"gradients-{'0123456789abcdef' * 2}"

OWN = {
    f"{STEM}.h5": "entry",
    f"{STEM}.damaged": "damaged",
    f"{STEM}.lock": "lock",
    f"{STEM}.holder": "holder",
    f".{STEM}.h5.0a1b2c3d": "temporary",
}

FOREIGN = (
    "notes.txt",
    "scores.h5",
    "gradients.lock",
    f"{STEM}.txt",
    f"{STEM}.h5.bak",
    f"my.{STEM}.h5",
    f"{STEM[:-1]}.h5",
    f"{STEM[:-1]}g.h5",
    f"{STEM.upper()}.h5",
    f".{STEM}.h5",
    f".{STEM}.h5.copy",
    f"{STEM}.h5.0a1b2c3d",
    f"folder/{STEM}.h5",
)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_only_names_that_the_cache_gives_are_its_own(tmp_path: Path) -> None:
    write(tmp_path, *OWN, *FOREIGN)
    (tmp_path / f"{STEM.replace('gradients', 'other')}.h5").mkdir()
    (tmp_path / f"{STEM.replace('gradients', 'linked')}.h5").symlink_to(tmp_path / "notes.txt")
    (item,) = items(tmp_path)
    assert {file.path.name: file.kind for file in item.files} == OWN
    assert item.size == sum(
        len(name) for name, kind in OWN.items() if kind in ("entry", "damaged", "temporary")
    )
    assert (item.name, item.key, item.path) == (
        "gradients",
        "0123456789abcdef" * 2,
        tmp_path / f"{STEM}.h5",
    )


def test_what_the_cache_writes_is_its_own(tmp_path: Path) -> None:
    cache = FactorCache(tmp_path)
    seen: set[str] = set()

    def compute() -> dict[str, object]:
        seen.update(file.kind for item in items(tmp_path) for file in item.files)
        return dict(arrays())

    get(cache, compute)
    cache.get("cross_fit-2", KEY, arrays, label="y")
    assert seen == {"lock", "holder"}
    assert len(items(tmp_path)) == 2
    known = {file.path for item in items(tmp_path) for file in item.files}
    assert known == set(tmp_path.iterdir())


def test_clear_leaves_what_is_not_the_caches(tmp_path: Path) -> None:
    write(tmp_path, *FOREIGN)
    before = files(tmp_path)
    write(tmp_path, *OWN)
    done = clear(tmp_path)
    assert sorted(file.path.name for file in done.removed) == sorted(OWN)
    assert (done.held, done.failed) == ([], [])
    assert files(tmp_path) == before


def test_dry_run_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, *OWN)
    (tmp_path / f"{STEM}.lock").write_bytes(b"")  # as locks are; trying one may empty it
    add(tmp_path, 1)
    write(tmp_path, f"other-{'0' * 32}.h5")  # without a lock file: none may be left
    before = files(tmp_path)
    done = clear(tmp_path, dry_run=True)
    assert {file.path.name for file in done.removed} == set(before)
    assert files(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [False, True])
def test_clear_skips_what_another_process_holds(tmp_path: Path, dry_run: bool) -> None:
    folder = tmp_path / "cache"
    entry = add(folder, 1)
    with held_by_another_process(folder) as process:
        (lock,) = (path for path in folder.glob("*.lock") if path.stem != entry.stem)
        write(folder, f".{lock.stem}.h5.12345678", f"{lock.stem}.damaged")
        done = clear(folder, dry_run=dry_run)
        assert len(done.held) == 1
        assert done.held[0].startswith(f"{lock.stem}: process {process.pid} on host ")
        held = {f".{lock.stem}.h5.12345678", *(f"{lock.stem}{s}" for s in OWN_SUFFIXES)}
        assert {file.path.stem for file in done.removed} == {entry.stem}
        assert {path.name for path in folder.glob(f"*{lock.stem}*")} == held
        assert entry.exists() == dry_run
    # A dead process holds nothing.
    assert clear(folder).held == []
    assert list(folder.iterdir()) == []


OWN_SUFFIXES = (".damaged", ".lock", ".holder")


def test_file_that_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, 1)

    def deny(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", deny)
    done = clear(tmp_path)
    assert done.removed == []
    (line,) = done.failed
    assert line.endswith(": cannot be removed (Permission denied)")


def test_folder_that_is_none(tmp_path: Path) -> None:
    assert items(tmp_path / "none") == []
    assert clear(tmp_path / "none").removed == []
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot be listed .*set METAAUDIT_CACHE_DIR"):
        items(tmp_path / "file")


def test_clear_while_it_is_used_leaves_the_cache_usable(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []
    cache = FactorCache(tmp_path)
    assert_same(get(cache), arrays())
    assert_same(get(cache, refuse), arrays())
    only_file(tmp_path)


# Each worker asks for keys that the other asks for too, of which the limit holds a few.
BUSY = """
import random, sys, time
from pathlib import Path
import numpy as np
from metaaudit.cache import FactorCache

cache = FactorCache(Path(sys.argv[1]), limit=60_000)
chosen = random.Random(int(sys.argv[2]))
end = time.monotonic() + 3
count = 0
while time.monotonic() < end:
    number = chosen.randrange(12)
    compute = lambda: {"a": np.full(500, number)}
    got = cache.get("gradients", {"number": number}, compute, label=f"{count}")
    assert (got["a"] == number).all()
    count += 1
assert cache.warnings == [], cache.warnings
assert cache.notes
assert {use.status for use in cache.uses.values()} == {"hit", "computed"}
print(count)
"""


@pytest.mark.slow
def test_two_processes_and_clearing_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", BUSY, folder, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    cleared = 0
    while any(worker.poll() is None for worker in workers):
        time.sleep(0.2)
        done = clear(folder)
        assert done.failed == []
        cleared += sum(file.kind == "entry" for file in done.removed)
    for worker in workers:
        shown, errors = worker.communicate(timeout=60)
        assert (worker.returncode, errors) == (0, "")
        assert int(shown) > 20
    assert cleared
    left = items(folder)
    assert {file.kind for item in left for file in item.files} <= {"entry", "lock"}
    assert sum(item.size for item in left) <= 60_000
