"""Readings of a checkpoint by the names of its tensors, below some prefix."""

from __future__ import annotations

from collections.abc import Iterator

from metaaudit.inputs.checkpoints.interpretation import Reading
from metaaudit.inputs.checkpoints.names import prefixes
from metaaudit.inputs.checkpoints.target import Target, Tensors


def readings_by_name(tensors: Tensors, target: Target) -> Iterator[Reading]:
    """For every prefix below which there is any of the network's weights, what is found there.

    Names of a file may have a prefix that the network's lack (``module.``), or the reverse, or both
    have one of their own (``embedding.`` for ``features.``).
    """
    wanted = list(target.weights) or list(target.own)
    every = (*wanted, *target.buffers)
    cuts = [cut for cut in prefixes(wanted) if all(name.startswith(cut) for name in every)]
    for prefix in prefixes(tensors):
        for cut in cuts:
            reading = _reading(tensors, target, prefix, cut)
            if any(name in reading.places for name in wanted):
                yield reading


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
    below = f" below '{prefix}'" if prefix else ""
    without = f" without the model's '{cut}'" if cut else ""
    return Reading(
        f"by name{below}{without}",
        {name: place for name, place in found.items() if place},
        prefix,
        cut,
    )


def _above(tensors: Tensors, prefix: str, name: str) -> str | None:
    """A learner's own tensor: beside the network's weights or above them."""
    parts = prefix.split(".")[:-1]
    for n in range(len(parts), -1, -1):
        place = "".join(f"{part}." for part in parts[:n]) + name
        if place in tensors:
            return place
    return None
