"""The ranked tasks as the page shows them, each with what opens below it."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.task_set import SETS
from metaaudit.reports.views import FindingView, Link, Places, Tile
from metaaudit.runs.tables import InstanceRow, TaskRow

MAX_TILES = 200
"""Of a support or query set."""
MAX_LONE_TILES = 10
"""Of a set without the pictures of all its instances."""
MAX_LINKS = 12
EXTREMES = 3


@dataclass(frozen=True)
class ClassTiles:
    """The shown instances of one class in a set: one row of the contact sheet."""

    name: str
    tiles: list[Tile]


@dataclass(frozen=True)
class SetTiles:
    """A support or query set, of which ``shown`` of ``total`` instances are shown."""

    name: str
    classes: list[ClassTiles]
    shown: int
    total: int


@dataclass(frozen=True)
class Evaluation:
    """What a task does to the evaluation tasks.

    Attributes:
        most_hurt: Those whose loss it raises most, with the influence.
        most_helped: Those whose loss it lowers most.
        hurt: How many it hurts.
        helped: How many it helps.
    """

    most_hurt: list[tuple[str, float]]
    most_helped: list[tuple[str, float]]
    hurt: int
    helped: int


@dataclass(frozen=True)
class Interval:
    """An influence with its interval, on the axis of all tasks, in per cent of its length."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class TaskView:
    """One task and what opens below it.

    Attributes:
        row: Its line of ``tasks.csv``.
        rules: The rules that flag it.
        mislabeled: Number of its flagged instances.
        interval: Its influence as it is drawn; none where it is not finite.
        sets: Its support and query set.
        evaluation: What it does to the evaluation tasks; none where that is not known.
        findings: Its findings, borderline ones too.
        items: Its flagged instances that have a card.
        twins: Other tasks with the same content.
    """

    row: TaskRow
    rules: list[str]
    mislabeled: int
    interval: Interval | None
    sets: list[SetTiles]
    evaluation: Evaluation | None
    findings: list[FindingView]
    items: list[Link]
    twins: list[Link]

    @property
    def statuses(self) -> list[str]:
        """What the gates make of its findings, each once."""
        return sorted({one.status for one in self.findings if one.status})


@dataclass(frozen=True)
class TaskTable:
    """All tasks that the page shows.

    Attributes:
        tasks: Most harmful first.
        zero: Where the axis of the influence has its zero, in per cent of its length.
        median_loss: Of the query loss after adaptation, over all tasks of the run.
        median_norm: Of the gradient norm.
    """

    tasks: list[TaskView]
    zero: float
    median_loss: float
    median_norm: float


def task_table(places: Places) -> TaskTable:
    """Builds the views of the tasks."""
    rows = places.run.tasks
    axis = _Axis(places.tasks)
    builder = _Builder(places, axis)
    return TaskTable(
        tasks=[builder.task(row) for row in places.tasks],
        zero=axis.position(0.0),
        median_loss=statistics.median(row.outer_loss for row in rows),
        median_norm=statistics.median(row.grad_norm for row in rows),
    )


class _Axis:
    def __init__(self, rows: Sequence[TaskRow]) -> None:
        ends = [
            value
            for row in rows
            for value in (row.influence, row.influence_low, row.influence_high)
            if value is not None and math.isfinite(value)
        ]
        self.low, self.high = min([0.0, *ends]), max([0.0, *ends])

    def position(self, value: float) -> float:
        length = self.high - self.low
        return round(100 * (value - self.low) / length, 1) if length else 50.0

    def interval(self, row: TaskRow) -> Interval | None:
        ends = (row.influence_low, row.influence, row.influence_high)
        low, middle, high = (row.influence if end is None else end for end in ends)
        if not all(map(math.isfinite, (low, middle, high))):
            return None
        return Interval(self.position(low), self.position(middle), self.position(high))


class _Builder:
    def __init__(self, places: Places, axis: _Axis) -> None:
        self.places = places
        self.axis = axis
        task_ids, self.eval_ids, self.influence = places.run.task_influence
        self.position = {task_id: row for row, task_id in enumerate(task_ids)}
        self.contents: dict[str, list[str]] = defaultdict(list)
        for row in places.run.tasks:
            self.contents[row.content].append(row.task_id)

    def task(self, row: TaskRow) -> TaskView:
        instances = self.places.by_task.get(row.task_id, [])
        flagged = [instance for instance in instances if instance.mislabeled]
        found = self.places.of_task.get(row.task_id, [])
        twins = [other for other in self.contents[row.content] if other != row.task_id]
        items = (self.places.item(instance.instance_id) for instance in flagged)
        shown = {link.anchor: link for link in items if link.anchor}
        return TaskView(
            row=row,
            rules=[one.finding.rule for one in found if one.finding.flagged],
            mislabeled=len(flagged),
            interval=self.axis.interval(row),
            sets=[self._set(name, instances) for name in SETS],
            evaluation=self._evaluation(row.task_id),
            findings=found,
            items=list(shown.values())[:MAX_LINKS],
            twins=[self.places.task(other) for other in twins[:MAX_LINKS]],
        )

    def _set(self, name: str, instances: Sequence[InstanceRow]) -> SetTiles:
        rows = [row for row in instances if row.set == name]
        pictures = self.places.run.thumbnails
        if not all((row.task_id, row.set, row.index) in pictures for row in rows):
            # Without the others, only what is flagged is worth a tile.
            shown = [row for row in rows if row.mislabeled][:MAX_LONE_TILES]
        else:
            shown = sorted(rows, key=_wanted)[:MAX_TILES]
        tiles = [self.places.tile(row) for row in shown]
        tiles.sort(key=lambda tile: (tile.row.label, tile.row.index))
        classes: dict[int, list[Tile]] = defaultdict(list)
        for tile in tiles:
            classes[tile.row.label].append(tile)
        return SetTiles(
            "Batch" if self.places.run.labelled else f"{name.capitalize()} set",
            [
                ClassTiles(self.places.class_name(of[0].row.task_id, label), of)
                for label, of in classes.items()
            ],
            len(tiles),
            len(rows),
        )

    def _evaluation(self, task_id: str) -> Evaluation | None:
        if task_id not in self.position:
            return None
        values: npt.NDArray[np.float64] = self.influence[self.position[task_id]]
        order = np.argsort(-values, kind="stable")
        named = [(self.eval_ids[i], float(values[i])) for i in order]
        return Evaluation(
            most_hurt=[one for one in named[:EXTREMES] if one[1] > 0],
            most_helped=[one for one in named[::-1][:EXTREMES] if one[1] < 0],
            hurt=int((values > 0).sum()),
            helped=int((values < 0).sum()),
        )


def _wanted(row: InstanceRow) -> tuple[bool, int]:
    return not row.mislabeled, row.index
