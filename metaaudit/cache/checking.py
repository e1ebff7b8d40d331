"""Whether every file of the cache is as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metaaudit.cache.entry import check_entry
from metaaudit.cache.folder import items
from metaaudit.cache.seal import FORMAT, DamagedError


@dataclass(frozen=True)
class Checked:
    """What is to be said of one file.

    Attributes:
        path: The file.
        fault: What is wrong with it; empty if nothing is.
        note: Why it is of no use though nothing is wrong with it; empty if it is of use.
    """

    path: Path
    fault: str = ""
    note: str = ""


def check_folder(folder: Path) -> Iterator[Checked]:
    """Checks seal, key, completeness and links of every entry; changes nothing.

    Args:
        folder: The cache's folder.

    Raises:
        RunError: The folder cannot be read.
    """
    for item in items(folder):
        for file in item.files:
            if file.kind == "damaged":
                yield Checked(file.path, note="was set aside as damaged, and is never read")
            if file.kind == "entry":
                try:
                    found = check_entry(file.path, item.key).format
                except FileNotFoundError:  # another process has just removed it
                    continue
                except DamagedError as error:
                    yield Checked(file.path, fault=str(error))
                    continue
                other = f"is of format {found}, and this version reads {FORMAT} only"
                yield Checked(file.path, note="" if found == FORMAT else other)
