"""Foreign text, as it may be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Spells out control characters, so that an id can neither break a line nor steer a terminal.

    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
