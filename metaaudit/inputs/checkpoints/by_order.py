"""Readings of a checkpoint by the order and the shapes of its tensors, whatever their names.

Research code often holds its weights in a list (``vars.0`` to ``vars.17``), or calls its layers
otherwise than the networks here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import torch

from metaaudit.inputs.checkpoints.interpretation import Reading
from metaaudit.inputs.checkpoints.names import is_numbered, is_tracked, natural, prefixes
from metaaudit.inputs.checkpoints.target import Target, Tensors


def readings_by_order(tensors: Tensors, target: Target, *, ordered: bool) -> Iterator[Reading]:
    """Below every prefix, where the tensors have the network's shapes one after the other.

    Args:
        tensors: The file's tensors.
        target: What is wanted.
        ordered: Whether the file keeps the order in which its tensors were written.
    """
    if target.own.keys() - set(target.optional):
        return  # a learner's own tensors have no order among the network's
    weights = [name for name, tensor in tensors.items() if _is_weight(name, tensor)]
    lists = [(), tuple(_copies(weights, tensors))]  # copies are left out only where that helps
    for prefix in prefixes(weights):
        below = [name for name in weights if name.startswith(prefix)]
        where = f" below '{prefix}'" if prefix else ""
        for copies in lists:
            kept = [name for name in below if name not in copies]
            orders = {"in the file's order": kept} if ordered else {}
            numbered = sorted(kept, key=natural)
            if all(
                tensors[one].shape != tensors[other].shape or is_numbered(one, other)
                for one, other in pairwise(
                    sorted(kept, key=lambda n: (tensors[n].shape, natural(n)))
                )
            ):
                orders["in the order of the numbers in their names"] = numbered
            found = [
                Reading(f"{how}{where}", dict(zip(wanted, names, strict=True)), prefix)
                for how, names in orders.items()
                for wanted in (list(target.network), list(target.weights))
                if _same_shapes([tensors[n] for n in names], [target.network[w] for w in wanted])
            ]
            yield from found
            if found:
                break


def _is_weight(name: str, tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and not is_tracked(name)


def _same_shapes(given: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return [one.shape for one in given] == [one.shape for one in wanted]


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
    if pairs:
        most = max(pairs)[0]
        for prefix in dict.fromkeys(prefix for count, prefix in pairs if count == most):
            yield from (prefix + name for name in modules[prefix])


def _equal(one: str, other: str, inner: set[str], tensors: Tensors) -> bool:
    return all(torch.equal(tensors[one + name], tensors[other + name]) for name in inner)
