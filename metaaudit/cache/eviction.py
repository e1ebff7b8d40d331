"""Keeping the folder below its limit: what was not used for longest goes first."""

from __future__ import annotations

from pathlib import Path

from metaaudit.cache.folder import Item, items, remove


def make_room(folder: Path, limit: float) -> list[Item]:
    """Removes the least recently used entries until the folder's files are within the limit.

    Entries whose locks are held, by this process or another, stay; so do those used meanwhile.

    Args:
        folder: The cache's folder.
        limit: In bytes.

    Returns:
        What was removed.

    Raises:
        RunError: The folder cannot be read.
    """
    found = items(folder)
    total = sum(item.size for item in found)
    gone = []
    for item in sorted(found, key=lambda item: (item.used, item.stem)):
        if total <= limit:
            break
        if item.size and _removed(item):
            gone.append(item)
            total -= item.size
    return gone


def _removed(item: Item) -> bool:
    def unused_since() -> bool:
        try:
            return item.path.stat().st_mtime == item.used
        except FileNotFoundError:  # there was none, or another process was faster
            return True

    try:
        return remove(item, unused_since)
    except OSError:  # such as a file of another user's
        return False
