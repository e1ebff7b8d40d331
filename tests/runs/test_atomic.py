"""Where files and folders are written through links, to pipes and to devices."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from metaaudit.errors import RunError
from metaaudit.runs.atomic import new_folder, replacing, write_text


def test_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "report.md"
    for before in (None, "old"):
        link = tmp_path / f"link-{before}"
        if before is not None:
            target.write_text(before)
        link.symlink_to(target)
        write_text(link, "new")
        assert link.is_symlink()
        assert target.read_text() == "new"
        assert list(target.parent.iterdir()) == [target]
        target.unlink()


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(RunError, match="symbolic links"):
        write_text(tmp_path / "a", "new")
    with pytest.raises(RunError, match="symbolic links"), new_folder(tmp_path / "a"):
        pytest.fail("computed")
    assert (tmp_path / "a").is_symlink()


def test_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_text(pipe, "text")
    reader.join(timeout=10)
    assert read == ["text"]
    assert pipe.is_fifo()


def test_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RunError, match="no regular file"), replacing(pipe):
        pytest.fail("computed")
    assert pipe.is_fifo()


# By a name in a folder that takes no new files: a mistake here could replace a device for all.
@pytest.mark.skipif(not Path("/dev/fd/1").exists(), reason="no /dev/fd here")
def test_standard_output_is_added_to_even_where_it_is_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("before\n")
    code = (
        "from pathlib import Path; from metaaudit.runs.atomic import write_text; "
        "write_text(Path('/dev/fd/1'), 'text\\n')"
    )
    node = out.stat().st_ino
    with out.open("a") as stream:
        done = subprocess.run([sys.executable, "-c", code], stdout=stream, timeout=60)
    assert done.returncode == 0
    assert out.read_text() == "before\ntext\n"
    assert out.stat().st_ino == node


def test_pipe_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def closed(path: Path, *_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(RunError, match=r"pipe: cannot be written \(Broken pipe\)"):
        write_text(pipe, "text")


@pytest.mark.parametrize("exists", [True, False])
def test_new_folder_behind_a_link_is_made_there(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "there" / "run", tmp_path / "link"
    if exists:
        target.mkdir(parents=True)
    link.symlink_to(target)
    with new_folder(link) as temporary:
        (temporary / "file").write_text("whole")
    assert link.is_symlink()
    assert (target / "file").read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == [link, target.parent]


def test_mount_point_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mount").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "mount")
    with pytest.raises(RunError, match="is a mount point"), new_folder(tmp_path / "mount"):
        pytest.fail("computed")
