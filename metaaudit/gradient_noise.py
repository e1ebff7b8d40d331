"""The noise of the gradients at a checkpoint: of tasks, and of learned selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from metaaudit.errors import TaskSetError
from metaaudit.methods.data_features import data_features
from metaaudit.models import Layout
from metaaudit.selection import (
    FEWEST,
    Floats,
    Hypergradient,
    MetaNetwork,
    SignalToNoise,
    by_parameter,
    gram,
    measured_agreement,
    signal_to_noise,
    standardised,
    task_features,
    weight_flow,
)
from metaaudit.stages import Stages

PAIRS = 400
"""Pairs of batches that are drawn of each size."""

BATCHES = (1, 2, 5, 10, 25, 50, 100, 200, 500, 1000)

UNTIL = 0.25
"""Weights flow until so small a share of the tasks counts."""

FIFTHS = ("best", "second", "third", "fourth", "worst")
"""Groups of tasks, by how much they help."""


@dataclass(frozen=True)
class Agreement:
    """How far the means of two batches agree.

    Attributes:
        batch: Tasks of each.
        predicted: From one half of the tasks.
        interval: Of 95%, for ``predicted``.
        measured: On the other half.
    """

    batch: int
    predicted: float
    interval: tuple[float, float]
    measured: float


@dataclass(frozen=True)
class Diagnosed:
    """The gradients of one kind at one checkpoint.

    Attributes:
        name: Whose they are.
        ratio: Their signal-to-noise ratio.
        agreements: By batch size.
        by_layer: Median ratio of the parameters of each layer.
    """

    name: str
    ratio: SignalToNoise
    agreements: list[Agreement]
    by_layer: dict[str, float]


@dataclass(frozen=True)
class Flow:
    """What weights of the tasks come to when some held-out tasks decide, judged by the others.

    Attributes:
        name: Of the checkpoint, or nothing.
        time: ``[n]``.
        shares: ``[n, 5]``: of the weight of all, that of each fifth of the tasks, of which the
            first helps the other held-out tasks most.
    """

    name: str
    time: Floats
    shares: Floats


def diagnosed(stages: Stages) -> tuple[list[Diagnosed], list[Flow]]:
    """Diagnoses the gradients of training and of evaluation tasks, and where weights flow.

    Where the method is ``mts``, the gradients of its meta-network too, before it has learned.

    Args:
        stages: Of a checkpoint.

    Raises:
        TaskSetError: There are too few tasks.
        MetaauditError: Something cannot be finished.
    """
    config = stages.problem.config.influence
    sets = {
        "training tasks": stages.training_adaptation(),
        "evaluation tasks": stages.evaluation_adaptation(),
    }
    for name, adaptation in sets.items():
        if len(adaptation.task_set) < FEWEST:
            raise TaskSetError(
                "tasks", f"there are {len(adaptation.task_set)} {name}", f"at least {FEWEST}"
            )
    gradients = {name: stages.gradients(some).gradients for name, some in sets.items()}
    layout = Layout.of(stages.weights.params)
    found = [
        _of_tasks(f"{name}{stages.of}", rows, layout, config.seed)
        for name, rows in gradients.items()
    ]
    if config.method != "mts":
        return found, []
    own, held_out = (rows.astype(np.float64) for rows in gradients.values())
    alignments = own @ held_out.T
    return [*found, _of_network(stages, alignments)], [_flow(stages, alignments)]


def _of_tasks(name: str, gradients: np.ndarray, layout: Layout, seed: int) -> Diagnosed:
    products = gram(gradients)
    one, other = np.array_split(np.random.default_rng(seed).permutation(len(products)), 2)
    known, unseen = (products[np.ix_(half, half)] for half in (one, other))
    agreements = []
    if len(unseen) >= FEWEST:
        measured = partial(measured_agreement, unseen, pairs=PAIRS, seed=seed)
        agreements = _agreements(signal_to_noise(known), measured, len(unseen))
    by_layer = _medians(gradients, layout)
    return Diagnosed(name, signal_to_noise(products), agreements, by_layer)


def _of_network(stages: Stages, alignments: Floats) -> Diagnosed:
    """Of the meta-network that weights tasks, as it begins.

    Where the look-ahead step leads is taken to be where it starts.
    """
    problem, seed = stages.problem, stages.problem.config.influence.seed
    config, like = problem.config.influence.mts, next(iter(stages.weights.params.values()))
    features = standardised(task_features(data_features(stages), problem.train))
    x = torch.from_numpy(features).to(like)
    network = MetaNetwork.new(x.shape[1], config.hidden, config.weights, seed, like)
    every = Hypergradient.of(network, x, alignments)
    known, unseen = every.halves(seed)
    agreements = []
    if min(unseen.alignments.shape) >= FEWEST:
        measured = partial(unseen.measured_agreement, pairs=PAIRS, seed=seed)
        size = min(unseen.alignments.shape)
        agreements = _agreements(known.signal_to_noise(), measured, size)
    by_layer = _medians(every.single(), Layout.of(dict(network.layers.named_parameters())))
    name = f"pairs of tasks for the meta-network{stages.of}"
    return Diagnosed(name, every.signal_to_noise(), agreements, by_layer)


def _agreements(
    predicted: SignalToNoise, measured: Callable[[int], float], count: int
) -> list[Agreement]:
    return [
        Agreement(
            batch, predicted.agreement(batch), predicted.agreement_interval(batch), measured(batch)
        )
        for batch in BATCHES
        if 2 * batch <= count
    ]


def _medians(gradients: Floats, layout: Layout) -> dict[str, float]:
    parts = layout.split(torch.from_numpy(by_parameter(gradients)))
    varying = {layer: part[~part.isnan()].numpy() for layer, part in parts.items()}
    return {
        layer: float(np.median(some)) if some.size else np.nan for layer, some in varying.items()
    }


def _flow(stages: Stages, alignments: Floats) -> Flow:
    rng = np.random.default_rng(stages.problem.config.influence.seed)
    deciding, judging = np.array_split(rng.permutation(alignments.shape[1]), 2)
    time, weights = weight_flow(alignments[:, deciding].mean(axis=1), UNTIL)
    order = np.argsort(-alignments[:, judging].mean(axis=1), kind="stable")
    shares = weights / weights.sum(axis=1, keepdims=True)
    fifths = [shares[:, rows].sum(axis=1) for rows in np.array_split(order, len(FIFTHS))]
    return Flow(stages.of, time, np.column_stack(fifths))
