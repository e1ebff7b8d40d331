"""Which classes are taken for which: given against suggested class of the flagged items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from metaaudit.runs.tables import ItemRow

MAX_CLASSES = 20
MAX_PAIRS = 12


@dataclass(frozen=True)
class ClassNoise:
    """One row of the matrix.

    Attributes:
        name: The given class.
        counts: Flagged items by suggested class, in the order of ``Confusion.classes``.
        flagged: All its flagged items, also those of a suggested class that is not shown.
        items: All its items.
    """

    name: str
    counts: list[int]
    flagged: int
    items: int

    @property
    def share(self) -> float:
        """Share of its items that is flagged, 0 where it has none."""
        return self.flagged / self.items if self.items else 0.0


@dataclass(frozen=True)
class Confusion:
    """Given against suggested class.

    Attributes:
        classes: Those that take part in most flagged items, at most ``MAX_CLASSES``.
        rows: One for each of them, by given class.
        largest: The largest count.
        outside: Flagged items in no cell, since one of their classes is not shown.
        n_classes: Number of classes that take part in a flagged item.
        pairs: ``(given, suggested, count)`` of the most frequent pairs, also of other classes.
    """

    classes: list[str]
    rows: list[ClassNoise]
    largest: int
    outside: int
    n_classes: int
    pairs: list[tuple[str, str, int]]


def confusion(items: Sequence[ItemRow]) -> Confusion | None:
    """Counts the flagged items by class; none where nothing is flagged."""
    flagged = [row for row in items if row.mislabeled]
    if not flagged:
        return None
    pairs = Counter((row.label, row.suggested_label) for row in flagged)
    # A class takes part as the given and as the suggested one.
    part = Counter(name for row in flagged for name in {row.label, row.suggested_label})
    ranked = sorted(part, key=lambda name: (-part[name], name))
    classes = sorted(ranked[:MAX_CLASSES], key=_natural)
    given, total = Counter(row.label for row in flagged), Counter(row.label for row in items)
    rows = [
        ClassNoise(name, [pairs[name, other] for other in classes], given[name], total[name])
        for name in classes
    ]
    inside = sum(sum(row.counts) for row in rows)
    return Confusion(
        classes=classes,
        rows=rows,
        largest=max(max(row.counts) for row in rows),
        outside=len(flagged) - inside,
        n_classes=len(part),
        pairs=[
            (*names, count)
            for names, count in sorted(pairs.items(), key=lambda one: (-one[1], one[0]))[:MAX_PAIRS]
        ],
    )


def _natural(name: str) -> tuple[bool, int, str]:
    """Numbers by value, before names."""
    digits = name.isascii() and name.isdigit()
    return not digits, int(name) if digits and len(name) < 20 else 0, name
