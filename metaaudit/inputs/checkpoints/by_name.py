"""Readings of a checkpoint by the names of its tensors, below some prefix."""

from __future__ import annotations

from metaaudit.inputs.checkpoints.interpretation import Reading
from metaaudit.inputs.checkpoints.names import prefixes
from metaaudit.inputs.checkpoints.target import Target, Tensors


def readings_by_name(tensors: Tensors, target: Target) -> list[Reading]:
    """Wherever there is any of the network's weights, what is found there.

    The file's names may have a prefix that the network's lack (``module.``). The reverse is looked
    at where nothing is complete without.
    """
    wanted = list(target.weights) or list(target.own)
    found: list[Reading] = []
    for cuts in ([""], prefixes(wanted)[1:]):
        found += [
            _reading(tensors, target, prefix, cut)
            for cut in cuts
            for prefix in prefixes(tensors)
            if _any(tensors, target, wanted, prefix, cut)
        ]
        if not all(one.missing(target) for one in found):
            break
    return found


def _any(tensors: Tensors, target: Target, wanted: list[str], prefix: str, cut: str) -> bool:
    return any(
        prefix + one.removeprefix(cut) in tensors
        for name in wanted
        for one in target.names(name)
        if one.startswith(cut)
    )


def _reading(tensors: Tensors, target: Target, prefix: str, cut: str) -> Reading:
    """The weights below ``prefix``, named without ``cut``."""

    def find(name: str) -> str | None:
        for one in target.names(name):
            if one.startswith(cut) and prefix + one.removeprefix(cut) in tensors:
                return prefix + one.removeprefix(cut)
        return None

    found = {name: find(name) for name in (*target.network, *target.buffers)}
    for name in target.own:
        found[name] = _above(tensors, prefix, name)
    how = "by name" + (f" below '{prefix}'" if prefix else "")
    how += f" without the model's '{cut}'" if cut else ""
    return Reading(how, {name: place for name, place in found.items() if place}, prefix, cut)


def _above(tensors: Tensors, prefix: str, name: str) -> str | None:
    """A learner's own tensor: beside the network's weights or above them."""
    parts = prefix.split(".")[:-1]
    for n in range(len(parts), -1, -1):
        place = "".join(f"{part}." for part in parts[:n]) + name
        if place in tensors:
            return place
    return None
