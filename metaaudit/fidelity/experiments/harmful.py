"""Finding the tasks whose labels ``plant`` changed, and retraining without those found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metaaudit.config.evaluate import CandidateConfig, HarmfulConfig
from metaaudit.errors import ConfigError
from metaaudit.fidelity.comparison import mean_and_error
from metaaudit.fidelity.label_signals import label_noise
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.retraining import Retrained, Retraining
from metaaudit.fidelity.subsets import without_tasks
from metaaudit.fidelity.workbench import Workbench
from metaaudit.problem import Problem

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RANDOM, BEST, NOTHING, EXACT, NOISE, CONTRADICTION = HarmfulConfig.reserved
CANDIDATES = [
    CandidateConfig(name="influence"),
    CandidateConfig(name="loss", influence={"method": "loss"}),
]
"""Where none are named: influence as configured, and the loss."""


@dataclass(frozen=True)
class Removed:
    """What a retraining goes without.

    Attributes:
        by: The ranking, or what is removed.
        share: Of the tasks; ``None`` where no share was asked for.
        rows: The tasks.
        seed: Training seed.
    """

    by: str
    share: float | None
    rows: tuple[int, ...]
    seed: int


def check(problem: Problem, config: HarmfulConfig) -> None:
    """Refuses tasks that are all correct, and shares of less than a task.

    Raises:
        ConfigError: No whole task is corrupted, or a share comes to none.
    """
    corrupted(problem)
    n_tasks = len(problem.train)
    for key in ("checked", "retrain"):
        for share in getattr(config, key):
            if not round(share * n_tasks):
                raise ConfigError(
                    f"evaluate: harmful: {key}",
                    f"{share:g} of {n_tasks} tasks is less than one",
                    "shares of a task or more",
                    f"give {1 / n_tasks:.2g} or more",
                )


def run(bench: Workbench, config: HarmfulConfig) -> Result:
    """Ranks the tasks, counts what is found, and retrains.

    Raises:
        ConfigError: No whole task is corrupted.
    """
    bad = corrupted(bench.problem)
    scores = {
        one.name: bench.scores(one).task_influence.mean(axis=1)
        for one in config.candidates or CANDIDATES
    }
    warnings: tuple[str, ...] = ()
    if config.label_noise:
        noise = label_noise(bench)
        scores[NOISE], warnings = noise.label_noise, tuple(noise.warnings)
        if bench.config.plant.permuted:
            scores[CONTRADICTION] = noise.contradictions.ratio
    orders = {name: np.argsort(-values, kind="stable") for name, values in scores.items()}
    n_tasks = len(bench.problem.train)
    removals = list(_removals(config, orders, bad, n_tasks))
    train = bench.problem.train
    retrained = bench.retrain(
        [Retraining(without_tasks(train, one.rows), one.seed) for one in removals]
    )
    found = _found(config, orders, bad, n_tasks)
    accuracy = _accuracy(removals, retrained, bad)
    return Result(
        config.kind,
        "Which ranking finds the tasks with corrupted labels, and does it help to drop them?",
        (found, accuracy),
        # With nothing retrained there is nothing to draw.
        tuple(one for one in (_found_figure(found), _accuracy_figure(accuracy)) if one.series),
        (*_notes(bench, config, len(bad), n_tasks), *warnings),
        complete=None not in retrained,
        details={
            "corrupted": [train.task_ids[row] for row in bad],
            "ranking": {
                name: [train.task_ids[row] for row in order] for name, order in orders.items()
            },
            "retrained": {
                "done": sum(one is not None for one in retrained),
                "asked": len(retrained),
            },
        },
    )


def corrupted(problem: Problem) -> tuple[int, ...]:
    """Positions of the tasks that were corrupted or permuted as a whole.

    Raises:
        ConfigError: There are none.
    """
    planted = problem.planted
    rows = sorted({*planted.corrupted, *planted.permuted}) if planted else []
    if not rows:
        raise ConfigError(
            "plant",
            "corrupts no whole task, so there is nothing for 'harmful' to find",
            "plant.corrupted or plant.permuted above 0",
            "add plant: {corrupted: 0.2}, and train the checkpoint with it",
        )
    return tuple(rows)


def share_found(order: Ints, bad: Sequence[int], share: float) -> float:
    """Share of the bad tasks among the first ``share`` of an order."""
    return float(np.isin(bad, order[: round(share * len(order))]).mean())


def _removals(
    config: HarmfulConfig, orders: dict[str, Ints], bad: tuple[int, ...], n_tasks: int
) -> Iterator[Removed]:
    """Seed by seed, so that a time budget leaves whole seeds."""
    for seed in range(config.seed, config.seed + config.seeds):
        by_chance = np.random.default_rng(seed).permutation(n_tasks)
        yield Removed(NOTHING, None, (), seed)
        yield Removed(EXACT, None, bad, seed)
        for name, order in {**orders, RANDOM: by_chance}.items():
            for share in config.retrain:
                gone = min(round(share * n_tasks), n_tasks - 1)
                yield Removed(name, share, tuple(order[:gone].tolist()), seed)


def _found(
    config: HarmfulConfig, orders: dict[str, Ints], bad: tuple[int, ...], n_tasks: int
) -> Table:
    rows: list[tuple[Value, ...]] = []
    for share in config.checked:
        checked = round(share * n_tasks)
        each = (share_found(order, bad, share) for order in orders.values())
        # The mean over all orders of what a random one finds is the share that is checked.
        rows.append((share, *each, checked / n_tasks, min(1.0, checked / len(bad))))
    return Table(
        "harmful-found",
        f"Share of the {len(bad)} corrupted tasks of {n_tasks} found, by the share checked",
        ("share checked", *orders, RANDOM, BEST),
        rows,
    )


def _accuracy(
    removals: Sequence[Removed], retrained: Sequence[Retrained | None], bad: tuple[int, ...]
) -> Table:
    """One row for each ranking and share, over the seeds."""
    done = {
        (one.by, one.share, one.seed): found.performance
        for one, found in zip(removals, retrained, strict=True)
        if found
    }
    rows: list[tuple[Value, ...]] = []
    for by, share in dict.fromkeys((one.by, one.share) for one in removals):
        seeds = [seed for name, part, seed in done if (name, part) == (by, share)]
        here = {seed: done[by, share, seed] for seed in seeds}
        gains = [
            100 * float((one.accuracies - done[NOTHING, None, seed].accuracies).mean())
            for seed, one in here.items()
            if (NOTHING, None, seed) in done
        ]
        gone = [one.rows for one in removals if (one.by, one.share) == (by, share)]
        rows.append(
            (
                by,
                share,
                len(gone[0]),
                float(np.mean([np.isin(rows, bad).sum() for rows in gone])),
                *mean_and_error(float(one.accuracies.mean()) for one in here.values()),
                *mean_and_error(gains if by != NOTHING else []),
                mean_and_error(float(one.losses.mean()) for one in here.values())[0],
                len(here),
            )
        )
    return Table(
        "harmful-retrained",
        "Accuracy on the evaluation tasks after retraining without the first tasks of a ranking",
        (
            "removed by",
            "share",
            "tasks removed",
            "corrupted among them",
            "accuracy",
            "accuracy error",
            "gain over removing nothing (points)",
            "gain error (points)",
            "loss",
            "seeds",
        ),
        rows,
    )


def _found_figure(found: Table) -> Figure:
    columns = list(zip(*found.rows, strict=True))
    x = tuple(float(value or 0) for value in columns[0])
    series = tuple(
        Series(name, x, tuple(float(value or 0) for value in column))
        for name, column in zip(found.columns[1:], columns[1:], strict=True)
    )
    return Figure(
        found.name, found.title, "share of the tasks checked", "share of them found", series
    )


def _accuracy_figure(table: Table) -> Figure:
    known = [values for values in table.rows if values[4] is not None]
    levels = {
        f"without {values[0]}": float(values[4] or 0) for values in known if values[1] is None
    }
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for values in known:
        if values[1] is not None:
            share, accuracy, error = (float(values[place] or 0) for place in (1, 4, 5))
            lines.setdefault(str(values[0]), []).append((share, accuracy, error))
    series = [
        Series(name, *(tuple(part) for part in zip(*sorted(points), strict=True)))
        for name, points in lines.items()
    ]
    return Figure(
        table.name,
        table.title,
        "share of the tasks removed",
        "accuracy on the evaluation tasks",
        tuple(series),
        levels,
    )


def _notes(bench: Workbench, config: HarmfulConfig, n_bad: int, n_tasks: int) -> list[str]:
    plant = bench.config.plant
    what = []
    if plant.corrupted:
        what.append(f"{plant.corrupted_labels:.0%} of the labels of some")
    if plant.permuted:
        what.append("the query labels of some, renamed")
    notes = [
        f"{n_bad} of {n_tasks} training tasks are corrupted: {' and '.join(what)}. The checkpoint "
        "should be one that was trained on them.",
        f"Of a random order, the mean over all orders is given; retraining has {config.seeds} "
        f"such orders, one a seed. Errors are over seeds from {config.seed} on.",
    ]
    if config.seeds == 1:
        notes.append("One seed: the errors are not known.")
    return notes
