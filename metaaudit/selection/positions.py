"""Where an instance lies in an embedding: among the others of its task, and beside held-out ones.

The inputs of the meta-network of arXiv 2606.00571 (appendix) that need no generator, with a task in
place of a data set: cosines, neighbours and ranks. Within a task they are of instances as they are
labelled, and an instance is never compared with itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.task_set import Ints

Floats = npt.NDArray[np.float64]

NEAREST = 5
CLOSEST = 3
TIE = 1e-9
BLOCK = 1024
"""Instances that are compared with all others at once."""

POSITIONS = (
    "own_centroid",
    "other_centroid",
    *(f"closest_{number}" for number in range(1, CLOSEST + 1)),
    "agreement",
    "density",
    "distance_rank",
)
"""Names of the features within a task, in order."""

HELD_OUT = (*(f"held_out_{number}" for number in range(1, CLOSEST + 1)), "held_out_mean")
"""Names of the features beside held-out data, in order."""


def positions(embedding: npt.NDArray[np.floating], labels: Ints) -> Floats:
    """The features ``[n, 8]`` of the instances of a task, or of a labelled data set.

    ``own_centroid`` and ``other_centroid`` are the cosine to the mean of the others of its class
    and the largest one to the mean of another class; ``closest_1`` to ``closest_3`` the largest
    cosines to others of its class, falling; ``agreement`` the share of its class among the five
    nearest of the task, weighted by cosine; ``density`` the mean cosine to those; and
    ``distance_rank`` the rank within its class, from 0 to 1, of how unusual its distance to the
    class mean is: ``|distance - median distance|``. What an instance has nobody for is 0.

    Args:
        embedding: ``[n, width]``.
        labels: ``[n]``.
    """
    unit = _unit(embedding.astype(np.float64))
    blocks = np.array_split(np.arange(len(unit)), -(-len(unit) // BLOCK))
    return np.column_stack(
        [
            *_centroids(unit, labels),
            np.concatenate([_among_others(unit, labels, rows) for rows in blocks]),
            _distance_rank(embedding.astype(np.float64), labels),
        ]
    )


def beside_held_out(embedding: npt.NDArray[np.floating], held_out: Floats) -> Floats:
    """The features ``[n, 4]`` of instances beside held-out ones, whatever the classes of both.

    The three largest cosines to held-out instances, falling, 0 where there are fewer, and the
    cosine to their mean.

    Args:
        embedding: ``[n, width]``, of a network that all of them see.
        held_out: ``[m, width]``, likewise; at least one.
    """
    unit, others = _unit(embedding.astype(np.float64)), _unit(held_out.astype(np.float64))
    return np.column_stack([*_closest(unit @ others.T), unit @ _unit(others.mean(axis=0))])


def _unit(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Floats = rows / np.where(length > 0, length, 1.0)
    return scaled


def _centroids(unit: Floats, labels: Ints) -> tuple[Floats, Floats]:
    classes = np.unique(labels)
    sums = np.stack([unit[labels == c].sum(axis=0) for c in classes])
    own = (labels[:, None] == classes[None, :]).argmax(axis=1)
    to_own = (unit * _unit(sums[own] - unit)).sum(axis=1)
    to_each = unit @ _unit(sums).T
    to_each[np.arange(len(labels)), own] = -np.inf
    to_other = to_each.max(axis=1)
    return to_own, np.where(np.isfinite(to_other), to_other, 0.0)


def _among_others(unit: Floats, labels: Ints, rows: Ints) -> Floats:
    """``closest_1`` to ``density`` of some instances."""
    cosine = unit[rows] @ unit.T
    cosine[np.arange(len(rows)), rows] = -np.inf
    same = labels[rows, None] == labels[None, :]
    closest = _closest(np.where(same, cosine, -np.inf))
    return np.column_stack([*closest, *_neighbours(cosine, same)])


def _closest(cosine: Floats) -> Floats:
    """``[3, n]``: the largest of each row, 0 where there are fewer."""
    count = min(CLOSEST, cosine.shape[1])
    largest = np.take_along_axis(cosine, _largest(cosine, count), axis=1)
    padded = np.pad(largest, ((0, 0), (0, CLOSEST - count)), constant_values=-np.inf)
    return np.where(np.isfinite(padded), padded, 0.0).T


def _neighbours(cosine: Floats, same: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    count = min(NEAREST, cosine.shape[1] - 1)
    if not count:
        return np.zeros(len(cosine)), np.zeros(len(cosine))
    nearest = _largest(cosine, count)
    near = np.take_along_axis(cosine, nearest, axis=1)
    weights = near.clip(min=0)
    total = weights.sum(axis=1)
    of_class = (weights * np.take_along_axis(same, nearest, axis=1)).sum(axis=1)
    return of_class / np.where(total > 0, total, 1.0), near.mean(axis=1)


def _largest(values: Floats, count: int) -> Ints:
    """``[n, count]``: where the largest of each row are, falling."""
    found = np.argpartition(-values, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(values, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def _distance_rank(embedding: Floats, labels: Ints) -> Floats:
    rank = np.zeros(len(labels))
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        if len(members) > 1:
            apart = embedding[members] - embedding[members].mean(axis=0)
            distance = np.linalg.norm(apart, axis=1)
            unusual = np.abs(distance - np.median(distance))
            # The two in the middle of an even number tie, whatever rounding makes of them.
            below = np.searchsorted(np.sort(unusual), unusual - TIE * distance.max())
            rank[members] = below / (len(members) - 1)
    return rank
