"""Names of tensors: how they are shown, ordered and cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

TRACKED = ("running_mean", "running_var", "num_batches_tracked")
"""Statistics that batch normalisation tracks."""

_SHOWN = 3
_LEAVES = {"weight": 0, "gamma": 0, "scale": 0, "bias": 1, "beta": 1}


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def is_tracked(name: str) -> bool:
    """Whether a tensor is a statistic of batch normalisation."""
    return name.rpartition(".")[2] in TRACKED


def natural(name: str) -> tuple[tuple[tuple[int, int | str], ...], tuple[int, str]]:
    """Sorts numbers in names as numbers, and a layer's weight before its bias.

    >>> sorted(["vars.10", "vars.9"], key=natural)
    ['vars.9', 'vars.10']
    """
    stem, _, leaf = name.rpartition(".")
    parts = re.split(r"(\d+)", stem if leaf in _LEAVES else name)
    order = tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)
    return order, (_LEAVES.get(leaf, 2), leaf)


def is_numbered(one: str, other: str) -> bool:
    """Whether numbers, or weight and bias, say which of two names comes first, not the alphabet.

    >>> is_numbered("conv1.weight", "conv2.weight"), is_numbered("last.weight", "first.weight")
    (True, False)
    """
    (first, leaf), (second, other_leaf) = natural(one), natural(other)
    for part, counterpart in zip(first, second, strict=False):
        if part != counterpart:
            return part[0] == counterpart[0] == 0
    return len(first) == len(second) and leaf[0] != other_leaf[0]


def prefixes(names: Iterable[str]) -> list[str]:
    """All dotted prefixes of names, the empty one first, each with its dot.

    >>> prefixes(["a.b.c", "a.d"])
    ['', 'a.', 'a.b.']
    """
    found = {"": None}
    for name in names:
        parts = name.split(".")
        found.update(
            ("".join(f"{part}." for part in parts[:n]), None) for n in range(1, len(parts))
        )
    return list(found)
