"""``metaaudit diagnose``: how noisy the gradients are that bilevel estimates rest on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from metaaudit.audit import Audit, prepared
from metaaudit.bilevel import Adaptation
from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.errors import TaskSetError
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.writing import write_evaluation
from metaaudit.manifest import measurements, provenance
from metaaudit.runs.atomic import check_new, new_folder
from metaaudit.selection import (
    FEWEST,
    Floats,
    SignalToNoise,
    by_parameter,
    gram,
    measured_agreement,
    signal_to_noise,
)
from metaaudit.stages import Stages

PAIRS = 400
"""Pairs of batches that are drawn of each size."""

BATCHES = (1, 2, 5, 10, 25, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Diagnosed:
    """The gradients of one set of tasks at one checkpoint.

    Attributes:
        name: Whose they are.
        ratio: Their signal-to-noise ratio.
        products: ``[n_tasks, n_tasks]`` of the gradients with each other.
        by_layer: Median ratio of the parameters of each layer.
    """

    name: str
    ratio: SignalToNoise
    products: Floats
    by_layer: dict[str, float]

    def agreements(self, seed: int) -> dict[int, tuple[float, float]]:
        """By batch size, the agreement of two batches: predicted, and measured on other tasks.

        The prediction is from one half of the tasks and the measurement on the other half.
        """
        one, other = np.array_split(np.random.default_rng(seed).permutation(len(self.products)), 2)
        if len(other) < FEWEST:
            return {}
        known, unseen = (self.products[np.ix_(half, half)] for half in (one, other))
        predicted = signal_to_noise(known)
        return {
            batch: (predicted.agreement(batch), measured_agreement(unseen, batch, PAIRS, seed))
            for batch in BATCHES
            if 2 * batch <= len(unseen)
        }


def run(config: Config, folder: Path | None, messages: Messages) -> Result:
    """Diagnoses the gradients of all tasks, and writes a folder where one is given.

    Args:
        config: The configuration.
        folder: Where results go; it appears when they are whole.
        messages: Told of progress.

    Raises:
        MetaauditError: Something cannot be used or finished.
    """
    if folder is not None:
        check_new(folder)
    audit = prepared(config, messages, keep=False)
    found = [one for number in range(len(audit.weights)) for one in _diagnosed(audit, number)]
    result = _result(found, config.influence.seed)
    if folder is not None:
        facts = provenance(audit.problem, audit.cache)
        spent = measurements(messages.timings, audit.problem.batching.device)
        with new_folder(folder) as temporary:
            write_evaluation(temporary, [result], facts | spent)
    return result


def _diagnosed(audit: Audit, number: int) -> list[Diagnosed]:
    stages = audit.stages(number)
    sets = {
        "training tasks": stages.training_adaptation(),
        "evaluation tasks": stages.evaluation_adaptation(),
    }
    for name, adaptation in sets.items():
        if len(adaptation.task_set) < FEWEST:
            raise TaskSetError(
                "tasks", f"there are {len(adaptation.task_set)} {name}", f"at least {FEWEST}"
            )
    return [_of(f"{name}{stages.of}", stages, some) for name, some in sets.items()]


def _of(name: str, stages: Stages, adaptation: Adaptation) -> Diagnosed:
    gradients = stages.gradients(adaptation).gradients
    products = gram(gradients)
    parts = adaptation.layout.split(torch.from_numpy(by_parameter(gradients)))
    medians = {layer: float(np.nanmedian(part.numpy())) for layer, part in parts.items()}
    return Diagnosed(name, signal_to_noise(products), products, medians)


def _result(found: list[Diagnosed], seed: int) -> Result:
    agreements = {one.name: one.agreements(seed) for one in found}
    return Result(
        kind="gradient-noise",
        title="How much of a mean of task gradients is signal",
        tables=(_ratios(found), _agreements(agreements), _layers(found)),
        figures=(_figure(agreements),),
        notes=tuple(map(_sentence, found)),
    )


def _ratios(found: list[Diagnosed]) -> Table:
    columns = ("gradients of", "tasks", "ratio", "low", "high", "batch", "ratio of their mean")
    rows = [
        (
            one.name,
            one.ratio.count,
            one.ratio.ratio,
            *one.ratio.interval,
            one.ratio.batch,
            one.ratio.of_mean(one.ratio.count),
        )
        for one in found
    ]
    title = "Signal-to-noise ratio of one task's gradient (95%), and the batch where it is 1"
    return Table("gradient-noise", title, columns, [*rows])


def _agreements(agreements: dict[str, dict[int, tuple[float, float]]]) -> Table:
    columns = ("gradients of", "batch", "predicted", "measured")
    rows = [
        (name, batch, *pair) for name, each in agreements.items() for batch, pair in each.items()
    ]
    title = (
        "Agreement of the mean gradients of two batches without a task in common: predicted from "
        "one half of the tasks, measured on the other"
    )
    return Table("batch-size", title, columns, [*rows])


def _layers(found: list[Diagnosed]) -> Table:
    names = list(found[0].by_layer)
    rows: list[tuple[Value, ...]] = [
        (name, *(one.by_layer[name] for one in found)) for name in names
    ]
    title = "Median signal-to-noise ratio of single parameters, by one task's gradient"
    return Table("layers", title, ("parameters", *(one.name for one in found)), rows)


def _figure(agreements: dict[str, dict[int, tuple[float, float]]]) -> Figure:
    def line(name: str, each: dict[int, tuple[float, float]], at: int) -> Series:
        label = f"{name}, {('predicted', 'measured')[at]}"
        return Series(label, tuple(map(float, each)), tuple(pair[at] for pair in each.values()))

    series = [line(name, each, at) for name, each in agreements.items() for at in range(2)]
    title = "Two batches agree as far as their mean gradients are signal"
    return Figure("batch-size", title, "tasks in a batch", "agreement", tuple(series))


def _sentence(one: Diagnosed) -> str:
    ratio, count = one.ratio, one.ratio.count
    high = ratio.interval[1]
    if high * count < 1:
        return (
            f"The mean gradient of the {count} {one.name} is mostly noise: its signal is at most "
            f"{high * count:.2g} of it (95%), so whatever rests on its direction does too."
        )
    return (
        f"The mean gradient of the {count} {one.name} has {ratio.of_mean(count):.2g} times as much "
        f"signal as noise; for as much of both take {ratio.batch:.0f} tasks at once."
    )
