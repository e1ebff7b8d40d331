"""What the page shows of each task and instance, bounded in number."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from metaaudit.inputs.task_set import SETS
from metaaudit.reports.text import number, percent
from metaaudit.reports.thumbnails import data_uri
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.tables import InstanceRow, TaskRow

MAX_TASKS = 100
MAX_CARDS = 100
MAX_TILES = 100
EXTREMES = 3


@dataclass(frozen=True)
class Tile:
    """One instance.

    Attributes:
        row: Its line of ``instances.csv``.
        image: Its thumbnail as a data URI, or ``None`` where the run kept none.
        given: The dataset's name of its label; empty where unknown.
        suggested: The dataset's name of the suggested label; empty where unknown.
    """

    row: InstanceRow
    image: str | None
    given: str
    suggested: str


@dataclass(frozen=True)
class SetTiles:
    """The instances of a support or query set that are shown, of ``total``."""

    name: str
    tiles: list[Tile]
    total: int


@dataclass(frozen=True)
class TaskView:
    """One task and what opens below it.

    Attributes:
        row: Its line of ``tasks.csv``.
        mislabeled: Number of its flagged instances.
        sets: Its support and query instances.
        most_hurt: Evaluation tasks whose loss it raises most, with the influence.
        most_helped: Evaluation tasks whose loss it lowers most.
        evidence: What its other scores say.
    """

    row: TaskRow
    mislabeled: int
    sets: list[SetTiles]
    most_hurt: list[tuple[str, float]]
    most_helped: list[tuple[str, float]]
    evidence: list[str]


@dataclass(frozen=True)
class SolveView:
    """How the solver went.

    Attributes:
        worst: Largest relative residual per iteration, the initial one first; empty for a solver
            that does not iterate.
        histories: Relative residuals of each target; empty in runs of earlier versions.
        given_up: Largest relative residuals of earlier solves, which another one replaced.
        median_iterations: Over the targets.
        most_iterations: Of a target.
        residual: The largest at the end; not finite where unknown.
    """

    worst: list[float]
    histories: list[list[float]]
    given_up: list[list[float]]
    median_iterations: float
    most_iterations: int
    residual: float


class Views:
    """Builds the views of a run."""

    def __init__(self, run: SavedRun) -> None:
        self.run = run

    def cards(self) -> list[Tile]:
        """The flagged instances, most suspicious first."""
        flagged = [row for row in self.run.instances if row.mislabeled]
        return [self._tile(row) for row in flagged[:MAX_CARDS]]

    def tasks(self) -> list[TaskView]:
        """The tasks, most harmful first."""
        return [self._task(row) for row in self.run.tasks[:MAX_TASKS]]

    def solve(self) -> SolveView:
        """How the solver went."""
        solver = self.run.manifest["solver"]
        worst, targets = _numbers(solver["residual_history"]), solver.get("targets", [])
        iterations = [target["iterations"] for target in targets] or [max(len(worst) - 1, 0)]
        histories = (_numbers(target.get("residual_history", [])) for target in targets)
        residuals = _numbers(target["residual"] for target in targets)
        return SolveView(
            worst=worst,
            histories=[history for history in histories if history],
            given_up=[_numbers(one["residual_history"]) for one in solver.get("attempts", [])[:-1]],
            median_iterations=statistics.median(iterations),
            most_iterations=max(iterations),
            residual=float(np.max(residuals, initial=-math.inf)),
        )

    def _task(self, row: TaskRow) -> TaskView:
        instances = self._by_task[row.task_id]
        hurt, helped = self._extremes(row.task_id)
        return TaskView(
            row=row,
            mislabeled=sum(instance.mislabeled for instance in instances),
            sets=[self._set(name, instances) for name in SETS],
            most_hurt=hurt,
            most_helped=helped,
            evidence=self._evidence(row, instances),
        )

    def _set(self, name: str, instances: Sequence[InstanceRow]) -> SetTiles:
        rows = sorted((row for row in instances if row.set == name), key=lambda row: row.index)
        tiles = [self._tile(row) for row in rows]
        if all(tile.image is None for tile in tiles):
            # Without images, only what is flagged is worth a tile.
            tiles = [tile for tile in tiles if tile.row.mislabeled]
        return SetTiles(name, tiles[:MAX_TILES], len(rows))

    def _tile(self, row: InstanceRow) -> Tile:
        pixels = self.run.thumbnails.get((row.task_id, row.set, row.index))
        image = None if pixels is None else data_uri(pixels)
        names = dict(enumerate(self.run.class_names.get(row.task_id, [])))
        return Tile(row, image, names.get(row.label, ""), names.get(row.suggested_label, ""))

    def _extremes(self, task_id: str) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        task_ids, eval_ids, influence = self.run.task_influence
        if task_id not in task_ids:
            return [], []
        values = influence[task_ids.index(task_id)]
        order = np.argsort(-values, kind="stable")
        hurt = [(eval_ids[i], float(values[i])) for i in order[:EXTREMES] if values[i] > 0]
        helped = [(eval_ids[i], float(values[i])) for i in order[::-1][:EXTREMES] if values[i] < 0]
        return hurt, helped

    def _evidence(self, row: TaskRow, instances: Sequence[InstanceRow]) -> list[str]:
        flagged = sum(instance.mislabeled for instance in instances)
        names = self.run.class_names.get(row.task_id, [])
        classes = ", ".join(f"{i} = {name}" for i, name in enumerate(names) if name)
        return [
            *([f"classes: {classes}"] if classes else []),
            f"{flagged} of {len(instances)} instances flagged as mislabeled; estimated share of "
            f"wrong labels {percent(row.label_noise)}",
            f"query loss after adaptation {number(row.outer_loss)} "
            f"(median over tasks {number(self._median_loss)})",
            f"gradient norm {number(row.grad_norm)} "
            f"(median over tasks {number(self._median_norm)})",
        ]

    @cached_property
    def _by_task(self) -> dict[str, list[InstanceRow]]:
        groups: dict[str, list[InstanceRow]] = defaultdict(list)
        for row in self.run.instances:
            groups[row.task_id].append(row)
        return groups

    @cached_property
    def _median_loss(self) -> float:
        return statistics.median(row.outer_loss for row in self.run.tasks)

    @cached_property
    def _median_norm(self) -> float:
        return statistics.median(row.grad_norm for row in self.run.tasks)


def _numbers(values: Iterable[float | None]) -> list[float]:
    """Puts back the NaN that JSON lacks."""
    return [math.nan if value is None else value for value in values]
