"""Names of tensors: how they are shown, ordered and cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

TRACKED = ("running_mean", "running_var", "num_batches_tracked")
"""Statistics that batch normalisation tracks."""

_SHOWN = 3
_LEAVES = ("weight", "bias", "running_mean", "running_var")
"""Last parts of names that say what a tensor is, in the order in which layers have them."""
_LISTED_STATISTICS = re.compile(r"(^|\.)vars_bn\.\d+$")


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def is_tracked(name: str) -> bool:
    """Whether a tensor is a statistic of batch normalisation, also as MAML-Pytorch lists them.

    >>> is_tracked("base.norm.running_mean"), is_tracked("net.vars_bn.3"), is_tracked("net.vars.3")
    (True, True, False)
    """
    return leaf(name) in TRACKED or _LISTED_STATISTICS.search(name) is not None


def leaf(name: str) -> str:
    """The last part of a name."""
    return name.rpartition(".")[2]


def contradict(one: str, other: str) -> bool:
    """Whether two names say that their tensors are different things, a weight and a bias.

    >>> contradict("conv1.weight", "norm.bias"), contradict("vars.1", "norm.bias")
    (True, False)
    """
    known = leaf(one), leaf(other)
    return known[0] != known[1] and all(part in _LEAVES for part in known)


def by_number(names: Sequence[str]) -> list[str] | None:
    """Names in the order of the numbers in them; ``None`` where numbers alone do not order them.

    >>> by_number(["vars.10", "vars.9"])
    ['vars.9', 'vars.10']
    >>> by_number(["0.bias", "0.weight"])
    ['0.weight', '0.bias']
    >>> by_number(["fc_hidden.weight", "fc_in.weight"])
    """
    parts = {name: _numbers(name) for name in names}
    texts = {text for text, _, _ in parts.values()}
    keys = {name: (numbers, last) for name, (_, numbers, last) in parts.items()}
    if len(texts) > 1 or len(set(keys.values())) < len(names):
        return None
    return sorted(names, key=keys.__getitem__)


def _numbers(name: str) -> tuple[str, tuple[int, ...], int]:
    """What a name is without its numbers; these; and the place of what it ends with."""
    known = leaf(name) in _LEAVES
    stem = name.rpartition(".")[0] if known else name
    numbers = tuple(int(number) for number in re.findall(r"\d+", stem))
    return re.sub(r"\d+", "#", stem), numbers, _LEAVES.index(leaf(name)) if known else -1


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
