"""``metaaudit cache``: what it shows, what it finds and what it removes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from metaaudit.cache import FactorCache
from metaaudit.cache.lock import locked
from metaaudit.cache.seal import write_seal
from tests.cache.cases import KEY, add, arrays
from tests.small import LABEL_STAGES, Case, cli, files, succeeds

OTHER = "gradients-" + "0" * 32


@pytest.fixture
def entries(cache_dir: Path) -> list[Path]:
    """Three entries and a note of somebody's."""
    paths = [add(cache_dir, number) for number in (1, 2)]
    FactorCache(cache_dir).get("crossfit", KEY, arrays, label="x")
    (third,) = cache_dir.glob("crossfit-*.h5")
    (cache_dir / "notes.txt").write_text("mine")
    return [*paths, third]


def test_ls_shows_every_entry(entries: list[Path], cache_dir: Path) -> None:
    os.utime(entries[0], (time.time() + 9, time.time() + 9))
    write_seal(entries[2], 12.34)
    write_seal(entries[1], 56.78, version=77)
    lines = succeeds(cli("cache", "ls")).stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert rows[0][:2] == ["gradients", entries[0].stem[-32:][:12]]
    by_key = {row[1]: row for row in rows}
    assert len(by_key) == 3
    third = by_key[entries[2].stem[-32:][:12]]
    size = entries[2].stat().st_size
    assert third[0] == "crossfit"
    assert third[2:4] == [f"{size / 1000:.1f} kB", "12.3 s"]
    assert third[4].startswith(time.strftime("%Y-"))
    assert third[5] == "3"
    assert by_key[entries[1].stem[-32:][:12]][5] == "77, not read"
    total = sum(path.stat().st_size for path in entries)
    assert lines[-1] == f"3 entries, {total / 1000:.1f} kB (limit 20.0 GB) in {cache_dir}"


def test_ls_names_what_is_no_entry_for_what_it_is(entries: list[Path], cache_dir: Path) -> None:
    entries[0].write_bytes(b"no entry")
    (cache_dir / f"{OTHER}.damaged").write_bytes(entries[1].read_bytes())
    (cache_dir / f".{OTHER}.h5.01234567").write_text("half")
    shown = succeeds(cli("cache", "ls")).stdout
    assert shown.count(" damaged ") == 2
    assert shown.count(" unfinished ") == 1
    assert "\n3 entries, " in shown


def test_ls_of_nothing(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAAUDIT_CACHE_LIMIT_GB", "inf")
    assert succeeds(cli("cache", "ls")).stdout == f"0 entries, 0 bytes (no limit) in {cache_dir}\n"
    assert not cache_dir.exists()


def test_verify_of_whole_entries_changes_nothing(entries: list[Path], cache_dir: Path) -> None:
    for path in entries:
        os.utime(path, (1e9, 1e9))
    before = files(cache_dir)
    outcome = succeeds(cli("cache", "verify"))
    assert outcome.stdout == f"3 whole, none damaged in {cache_dir}\n"
    assert files(cache_dir) == before
    assert {path.stat().st_mtime for path in entries} == {1e9}


def test_verify_names_every_damaged_file(entries: list[Path], cache_dir: Path) -> None:
    whole = bytearray(entries[0].read_bytes())
    whole[-1] ^= 1
    entries[0].write_bytes(whole)
    entries[1].rename(cache_dir / f"{OTHER}.h5")
    before = files(cache_dir)
    outcome = cli("cache", "verify")
    assert outcome.exit_code == 3
    assert sorted(outcome.stdout.splitlines()) == sorted(
        f"damaged: {name}: {why}; remove it, or the next run that needs it computes it again"
        for name, why in (
            (entries[0].name, "checksum differs"),
            (f"{OTHER}.h5", "was written for another key"),
        )
    )
    assert "2 damaged, 1 whole" in outcome.error
    assert files(cache_dir) == before


def test_verify_tells_of_files_that_are_of_no_use(entries: list[Path], cache_dir: Path) -> None:
    write_seal(entries[0], 1.0, version=2)
    (cache_dir / f"{OTHER}.damaged").write_text("set aside")
    outcome = succeeds(cli("cache", "verify"))
    first, second, last = sorted(outcome.stdout.splitlines(), key=lambda line: "format" in line)[
        -3:
    ]
    assert f"unused: {entries[0].name}: is of format 2, and this version reads 3 only" in last
    assert f"unused: {OTHER}.damaged: was set aside as damaged" in first + second
    assert f"2 whole, none damaged in {cache_dir}" in first + second


def test_clear_removes_the_caches_own(entries: list[Path], cache_dir: Path) -> None:
    (cache_dir / f"{OTHER}.damaged").write_text("set aside")
    before = files(cache_dir)
    listed = succeeds(cli("cache", "clear", "--dry-run")).stdout.splitlines()
    assert files(cache_dir) == before
    names = {line.removeprefix("would remove ").split(" (")[0] for line in listed[:-1]}
    assert names == set(before) - {"notes.txt"}
    assert listed[-1].startswith(f"would remove {len(names)} files, ")

    outcome = succeeds(cli("cache", "clear"))
    assert outcome.stdout.startswith(f"removed {len(names)} files, ")
    assert outcome.stdout.endswith(f"from {cache_dir}\n")
    assert files(cache_dir) == {"notes.txt": b"mine"}


def test_clear_says_what_it_skipped(entries: list[Path], cache_dir: Path) -> None:
    with locked(entries[0], lambda _: None):
        outcome = succeeds(cli("cache", "clear"))
    stem = entries[0].stem
    assert f"warning: {stem}: process {os.getpid()} on host " in outcome.stderr
    assert outcome.stderr.endswith("holds it; not removed\n")
    assert set(files(cache_dir)) == {"notes.txt", f"{stem}.h5", f"{stem}.lock"}


def test_clear_that_fails_is_incomplete(
    entries: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", deny)
    outcome = cli("cache", "clear")
    assert outcome.exit_code == 3
    assert f"{entries[0].stem}: cannot be removed (Permission denied)" in outcome.error
    assert all(path.exists() for path in entries)


@pytest.mark.parametrize("command", ["ls", "verify", "clear"])
def test_folder_that_is_a_file(cache_dir: Path, command: str) -> None:
    cache_dir.write_text("mine")
    outcome = cli("cache", command)
    assert outcome.exit_code == 2
    assert "cannot be listed" in outcome.error
    assert cache_dir.read_text() == "mine"


def test_bad_limit_is_one_line(
    trained_case: Case, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METAAUDIT_CACHE_LIMIT_GB", "lots")
    for outcome in (cli("cache", "ls"), trained_case.cli("score", "--run", trained_case.run)):
        assert outcome.exit_code == 2
        assert "METAAUDIT_CACHE_LIMIT_GB: is 'lots'" in outcome.error
        assert "Traceback" not in outcome.stderr
    assert not trained_case.run.exists()


def summary(told: str, count: int) -> list[str]:
    """The last lines before any warning."""
    return [line for line in told.splitlines() if not line.startswith("warning:")][-count:]


def test_score_says_what_it_reused_and_what_it_computed(trained_case: Case) -> None:
    stages = ("gradients", "gradients of evaluation tasks", "sampled Fisher", "instance influence")
    stages += LABEL_STAGES
    first = succeeds(trained_case.cli("score", "--run", trained_case.folder / "first")).stderr
    for line, stage in zip(summary(first, len(stages)), stages, strict=True):
        assert line.startswith(f"{stage}: computed in "), line
    second = succeeds(trained_case.cli("score", "--run", trained_case.folder / "second")).stderr
    for line, stage in zip(summary(second, len(stages)), stages, strict=True):
        assert line.startswith(f"{stage}: reused ("), line
        assert line.endswith(" s saved)"), line
