"""Folders that hold a data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metaaudit.errors import TaskSetError


@contextmanager
def searched(root: Path, expected: str) -> Iterator[None]:
    """Looks into the folder of a data set.

    Args:
        root: The folder.
        expected: What it should be, for messages.

    Raises:
        TaskSetError: It is no folder, or cannot be read.
    """
    try:
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise TaskSetError(root, what, expected, "check tasks.root")
        yield
    except OSError as error:
        raise TaskSetError(root, f"cannot be read ({error.strerror})") from None
