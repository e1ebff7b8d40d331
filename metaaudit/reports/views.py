"""What the parts of the page share: where each thing stands on it, its names and its picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from metaaudit.findings import BY_NAME, Finding
from metaaudit.gates import Judged, Outcome, Status
from metaaudit.reports.thumbnails import Cell, Pictures
from metaaudit.runs.saved import SavedRun, ThumbnailKey
from metaaudit.runs.tables import InstanceRow, TaskRow

MAX_TASKS = 2_000
MAX_CARDS = 200


@dataclass(frozen=True)
class Link:
    """A name, and where on the page it stands.

    Attributes:
        text: The name.
        anchor: Id of the element; empty where the page does not show it.
    """

    text: str
    anchor: str = ""


@dataclass(frozen=True)
class FindingView:
    """A finding with what the gate makes of it.

    Attributes:
        finding: The finding.
        subject: What it flags.
        status: The gate's; empty without one.
        reason: Of a suppression; else empty.
        evidence: The lines of its evidence that are not told already.
    """

    finding: Finding
    subject: Link
    evidence: tuple[str, ...]
    status: Status | str = ""
    reason: str = ""


@dataclass(frozen=True)
class Tile:
    """One occurrence of an instance.

    Attributes:
        row: Its line of ``instances.csv``.
        cell: Its picture; none where the run kept none.
        suggested: Name of the suggested label.
        anchor: Id of the item's card; empty where it has none.
    """

    row: InstanceRow
    cell: Cell | None
    suggested: str
    anchor: str


class Places:
    """Where on the page the tasks and items of a run stand.

    Args:
        run: The run.
        outcome: Of its gates, where it has any.
    """

    def __init__(self, run: SavedRun, outcome: Outcome | None = None) -> None:
        self.run = run
        self.outcome = outcome
        self.pictures = Pictures(run.thumbnails)

    @cached_property
    def tasks(self) -> list[TaskRow]:
        """The tasks that the page shows, most harmful first: no flagged one gives way to others."""
        wanted = sorted(
            self.run.tasks, key=lambda row: (row.task_id not in self._flagged_tasks, row.rank)
        )
        return sorted(wanted[:MAX_TASKS], key=lambda row: row.rank)

    @cached_property
    def mislabeled(self) -> list[Finding]:
        """The flagged items, most suspicious first."""
        return [one for one in self.run.findings.of("mislabeled") if one.flagged]

    @cached_property
    def borderline(self) -> list[Finding]:
        """The items that are nearly flagged."""
        return [one for one in self.run.findings.of("mislabeled") if not one.flagged]

    @cached_property
    def by_task(self) -> dict[str, list[InstanceRow]]:
        """The instances of each task."""
        groups: dict[str, list[InstanceRow]] = defaultdict(list)
        for row in self.run.instances:
            groups[row.task_id].append(row)
        return groups

    @cached_property
    def of_task(self) -> dict[str, list[FindingView]]:
        """The findings of each task, borderline ones too."""
        groups: dict[str, list[FindingView]] = defaultdict(list)
        for one in self.run.findings.findings:
            if BY_NAME[one.rule].subject == "task":
                view, told = self.finding(one), groups[one.subject]
                before = {line for other in told for line in other.evidence}
                news = tuple(line for line in view.evidence if line not in before)
                told.append(replace(view, evidence=news))
        return groups

    def finding(self, finding: Finding) -> FindingView:
        """A finding of this run, or of another one: then it links to where its subject stands."""
        judged = self._judged.get((finding.rule, finding.subject))
        is_task = BY_NAME[finding.rule].subject == "task"
        link = self.task(finding.subject) if is_task else self.item(finding.subject)
        if judged is None:
            return FindingView(finding, link, finding.evidence)
        return FindingView(finding, link, finding.evidence, judged.status, judged.reason)

    def findings(self, findings: Iterable[Finding]) -> list[FindingView]:
        """All of them."""
        return [self.finding(one) for one in findings]

    def task(self, task_id: str) -> Link:
        """Where a task stands."""
        return Link(task_id, self._task_anchors.get(task_id, ""))

    def item(self, instance_id: str) -> Link:
        """Where the card of an item stands."""
        return Link(instance_id, self._item_anchors.get(instance_id, ""))

    def class_name(self, task_id: str, label: int) -> str:
        """The data set's name of a label; the label where it has none."""
        names = self.run.class_names.get(task_id, [])
        return (names[label] if 0 <= label < len(names) else "") or str(label)

    def tile(self, row: InstanceRow) -> Tile:
        """One occurrence."""
        return Tile(
            row,
            self.cell(row.instance_id, [(row.task_id, row.set, row.index)]),
            self.class_name(row.task_id, row.suggested_label),
            self.item(row.instance_id).anchor,
        )

    def cell(self, instance_id: str, keys: Iterable[ThumbnailKey]) -> Cell | None:
        """The picture of an item: of the first of some occurrences that has one, or of any."""
        own = (key for key in keys if key in self.run.thumbnails)
        key = next(own, self._pictured.get(instance_id))
        return None if key is None else self.pictures.cell(key)

    @cached_property
    def _pictured(self) -> dict[str, ThumbnailKey]:
        keys = ((row.instance_id, (row.task_id, row.set, row.index)) for row in self.run.instances)
        return {name: key for name, key in keys if key in self.run.thumbnails}

    @cached_property
    def _task_anchors(self) -> dict[str, str]:
        return {row.task_id: f"task-{row.rank}" for row in self.tasks}

    @cached_property
    def _item_anchors(self) -> dict[str, str]:
        shown: Sequence[Finding] = self.mislabeled[:MAX_CARDS]
        return {one.subject: f"item-{number}" for number, one in enumerate(shown, start=1)}

    @cached_property
    def _flagged_tasks(self) -> set[str]:
        tasks = {
            one.subject
            for one in self.run.findings.findings
            if one.flagged and BY_NAME[one.rule].subject == "task"
        }
        return tasks | {row.task_id for row in self.run.instances if row.mislabeled}

    @cached_property
    def _judged(self) -> dict[tuple[str, str], Judged]:
        rules = self.outcome.rules if self.outcome else ()
        return {
            (one.finding.rule, one.finding.subject): one for rule in rules for one in rule.judged
        }
