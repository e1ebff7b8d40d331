"""Readings of a checkpoint by the order and the shapes of its tensors, whatever their names.

Research code often holds its weights in a list (``vars.0`` to ``vars.17``), or calls its layers
otherwise than the networks here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch

from metaaudit.inputs.checkpoints.interpretation import Reading
from metaaudit.inputs.checkpoints.names import by_number, contradict, is_tracked, prefixes
from metaaudit.inputs.checkpoints.target import Target, Tensors


def readings_by_order(tensors: Tensors, target: Target, *, ordered: bool) -> Iterator[Reading]:
    """Below every prefix, where there are as many tensors as the network has, in order.

    The order is that of the file, or that of the numbers where names differ in nothing else: the
    alphabet says nothing of layers.

    Args:
        tensors: The file's tensors.
        target: What is wanted.
        ordered: Whether the file keeps the order in which its tensors were written.
    """
    if target.own.keys() - set(target.optional):
        return  # a learner's own tensors have no order among the network's
    given = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    copies = set(_copies(given, tensors))
    for prefix in prefixes(given):
        below = [name for name in given if name.startswith(prefix)]
        # Copies are left out only where that helps.
        for kept in (below, [name for name in below if name not in copies]):
            found = list(_below(prefix, kept, target, ordered=ordered))
            yield from found
            if any(one.fits(tensors, target) for one in found):
                break


def _below(prefix: str, names: list[str], target: Target, *, ordered: bool) -> Iterator[Reading]:
    where = f" below '{prefix}'" if prefix else ""
    weights = _orders([name for name in names if not is_tracked(name)], ordered=ordered)
    statistics = _orders([name for name in names if is_tracked(name)], ordered=ordered)
    for how, given in weights.items():
        tracked = _paired(target.required, statistics.get(how, []))
        for wanted in (tuple(target.network), tuple(target.weights)):
            places = _paired(wanted, given)
            if places:
                yield Reading(f"{how}{where}", {**places, **tracked}, prefix)


def _orders(names: list[str], *, ordered: bool) -> dict[str, list[str]]:
    """The orders that names can be taken in."""
    orders = {"in the file's order": names} if ordered else {}
    numbered = by_number(names)
    if numbered is not None:
        orders["in the order of the numbers in their names"] = numbered
    return orders


def _paired(wanted: tuple[str, ...], given: list[str]) -> dict[str, str]:
    """Names in the file by those that are wanted, if it can be."""
    if len(wanted) != len(given) or any(map(contradict, wanted, given)):
        return {}
    return dict(zip(wanted, given, strict=True))


def _copies(weights: list[str], tensors: Tensors) -> Iterator[str]:
    """Tensors that are stored a second time: the same memory, or a whole module's equal values."""
    first: dict[tuple[int, torch.Size], str] = {}
    for name in weights:
        memory = (tensors[name].data_ptr(), tensors[name].shape)
        if first.setdefault(memory, name) != name:
            yield name
    modules = {
        p: {n.removeprefix(p) for n in weights if n.startswith(p)} for p in prefixes(weights)
    }
    # The largest alone: two layers with equal values, as at initialisation, are no copies.
    pairs = [
        (len(inner), prefix)
        for (other, same), (prefix, inner) in combinations(modules.items(), 2)
        if inner == same and len(inner) > 1 and _equal(prefix, other, inner, tensors)
    ]
    most = max(pairs, default=(0, ""))[0]
    for prefix in dict.fromkeys(prefix for count, prefix in pairs if count == most):
        yield from (prefix + name for name in modules[prefix])


def _equal(one: str, other: str, inner: set[str], tensors: Tensors) -> bool:
    return all(torch.equal(tensors[one + name], tensors[other + name]) for name in inner)
