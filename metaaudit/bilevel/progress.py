"""How long computations tell how far they are."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int], None]
"""Told how many more tasks are done."""
