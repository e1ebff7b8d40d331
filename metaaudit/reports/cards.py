"""The mislabeled items as the page shows them, one card an item."""

from __future__ import annotations

from dataclasses import dataclass

from metaaudit.findings import Finding
from metaaudit.reports.thumbnails import Cell
from metaaudit.reports.views import MAX_CARDS, FindingView, Link, Places
from metaaudit.runs.tables import ItemRow

MAX_PLACES = 6


@dataclass(frozen=True)
class PlaceView:
    """Where an item occurs.

    Attributes:
        task: The task.
        where: Set and index.
        mislabeled: Whether it is flagged there.
    """

    task: Link
    where: str
    mislabeled: bool


@dataclass(frozen=True)
class Card:
    """A flagged item.

    Attributes:
        view: Its finding.
        item: Its line of ``items.csv``; none where the table lacks it.
        cell: Its picture; none where the run kept none.
        places: The first few places where it occurs, those where it is flagged first.
    """

    view: FindingView
    item: ItemRow | None
    cell: Cell | None
    places: list[PlaceView]

    @property
    def occurrences(self) -> int:
        """In how many places it occurs."""
        return self.item.occurrences if self.item else len(self.view.finding.places)


def cards(places: Places) -> list[Card]:
    """The flagged items, most suspicious first, at most ``MAX_CARDS``."""
    items = {row.instance_id: row for row in places.run.items}
    flagged = {(row.task_id, row.set, row.index) for row in places.run.instances if row.mislabeled}
    return [_card(places, one, items, flagged) for one in places.mislabeled[:MAX_CARDS]]


def _card(
    places: Places,
    finding: Finding,
    items: dict[str, ItemRow],
    flagged: set[tuple[str, str, int]],
) -> Card:
    keys = [(place.task_id, str(place.set), place.index) for place in finding.places]
    keys.sort(key=lambda key: key not in flagged)
    return Card(
        view=places.finding(finding),
        item=items.get(finding.subject),
        cell=places.cell(finding.subject, keys),
        places=[
            PlaceView(places.task(key[0]), f"{key[1]} {key[2]}", key in flagged)
            for key in keys[:MAX_PLACES]
        ],
    )
