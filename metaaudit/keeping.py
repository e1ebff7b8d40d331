"""Stages whose results are kept: as a whole, and in parts while they are made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from metaaudit.cache import Arrays, FactorCache
from metaaudit.console import Advance, Messages
from metaaudit.errors import IncompleteError, is_out_of_memory
from metaaudit.inputs.task_set import TaskSet
from metaaudit.team import Team

Key = dict[str, Any]

PARTS = 16
"""Into how many parts a stage is cut, or a few more, where there are so many batches."""

WORTH_S = 1.0
"""Seconds of work that a part must save to be kept."""


@dataclass(frozen=True)
class Kept:
    """A stage whose arrays the cache may hold.

    Attributes:
        name: What the arrays are.
        stage: What the stage is called.
        depends_on: All that the arrays depend on.
    """

    name: str
    stage: str
    depends_on: Key

    def part(self, **which: Any) -> Key:
        """What a part of the arrays depends on."""
        return {**self.depends_on, **which}


@dataclass(frozen=True)
class Keeping:
    """Runs stages, and keeps what they give.

    Attributes:
        cache: Where it is kept.
        messages: Told of progress.
        team: The processes that share the work.
        batch: Tasks computed at once; a part has so many, or a multiple, at the most.
        of: Stands after the name of each stage, where there are several checkpoints.
    """

    cache: FactorCache
    messages: Messages
    team: Team
    batch: int
    of: str

    def holds(self, kept: Kept) -> bool:
        """Whether the cache holds the arrays of a stage."""
        return self.cache.holds(kept.name, kept.depends_on)

    def whole(self, kept: Kept, compute: Callable[[Advance], Arrays], total: int) -> Arrays:
        """A stage that one process computes for all.

        Args:
            kept: The stage.
            compute: Computes its arrays.
            total: Units of work.
        """
        label = f"{kept.stage}{self.of}"
        with self.messages.stage(label, total) as advance:
            arrays = None
            if self.team.first:
                own = kept.name, kept.depends_on
                arrays = self.cache.get(*own, lambda: compute(advance), label=label)
                self._tell(label, total, advance)
            return self.team.sent(arrays)

    def in_turns(
        self,
        kept: Kept,
        turn: Callable[[int, Arrays | None, Advance], Arrays],
        finish: Callable[[Arrays], Arrays],
        turns: int,
        each: int,
    ) -> Arrays:
        """A stage in which every turn goes on from what the one before gave; one process does all.

        The last turn that was finished is kept until all are: what is interrupted goes on from it.

        Args:
            kept: The stage.
            turn: Gives the arrays after a turn, from how many there were and what the last gave.
            finish: Takes those of the last turn to the arrays of the stage.
            turns: How many.
            each: Units of work of a turn.
        """

        def compute(advance: Advance) -> Arrays:
            return finish(_Turns(self.cache, kept, turn, advance).after(turns, each))

        arrays = self.whole(kept, compute, turns * each)
        if self.team.first and self.holds(kept):
            for number in range(1, turns):
                self.cache.forget(kept.name, kept.part(turn=number))
        return arrays

    def by_task(
        self, kept: Kept, task_set: TaskSet, compute: Callable[[list[int], Advance], Arrays]
    ) -> Arrays:
        """A stage whose arrays have a row a task, or a row an instance, in the order of the set.

        Its parts are shared among the processes, and kept until all are there: what is interrupted
        goes on from them.

        Args:
            kept: The stage.
            task_set: The tasks.
            compute: Computes the arrays of some rows of the set.
        """
        label, total = f"{kept.stage}{self.of}", len(task_set)
        with self.messages.stage(label, total) as advance:
            parts = _Parts(self, label, kept, task_set, compute, advance)
            if not self.team.first:
                return parts.together() if self.team.agreed() else self.team.sent()
            computed = False

            def together() -> Arrays:
                nonlocal computed
                computed = self.team.agreed(True)
                return parts.together()

            arrays = self.cache.get(kept.name, kept.depends_on, together, label=label)
            if computed:
                parts.forget()
                return arrays
            self._tell(label, total, advance)
            self.team.agreed(False)
            return self.team.sent(arrays)

    def _tell(self, label: str, total: int, advance: Advance) -> None:
        """Says what the cache saved, if it did."""
        use = self.cache.uses[label]
        if use.status == "hit":
            advance(total, f"from the cache, {use.saved_s:.1f} s saved")


@dataclass(frozen=True)
class _Turns:
    """The turns of a stage."""

    cache: FactorCache
    kept: Kept
    turn: Callable[[int, Arrays | None, Advance], Arrays]
    advance: Advance

    def after(self, turns: int, each: int) -> Arrays:
        """What so many turns give."""
        kept = (number for number in range(turns - 1, 0, -1) if self._holds(number))
        first, arrays = next(kept, 0), None
        if first:
            arrays = self._kept(first, lambda: self._from_start(first))
            self.advance(first * each, "kept from before")
        for number in range(first + 1, turns + 1):
            arrays = self._next(number, arrays, keep=number < turns)
        assert arrays is not None  # there is at least one turn
        return arrays

    def _next(self, number: int, before: Arrays | None, *, keep: bool) -> Arrays:
        def compute() -> Arrays:
            return self.turn(number - 1, before, self.advance)

        if not keep:
            return compute()
        found = self._kept(number, compute)
        if self._holds(number):
            self.cache.forget(self.kept.name, self.kept.part(turn=number - 1))
        return found

    def _from_start(self, turns: int) -> Arrays:
        """Where what was kept is damaged."""
        arrays = None
        for number in range(turns):
            arrays = self.turn(number, arrays, lambda *_: None)
        assert arrays is not None
        return arrays

    def _kept(self, number: int, compute: Callable[[], Arrays]) -> Arrays:
        key = self.kept.part(turn=number)
        return self.cache.get(self.kept.name, key, compute, worth_s=WORTH_S)

    def _holds(self, number: int) -> bool:
        return self.cache.holds(self.kept.name, self.kept.part(turn=number))


@dataclass
class _Parts:
    """The parts of a stage.

    Attributes:
        room: How many tasks memory holds at once, where a batch was too many; 0 until then.
    """

    keeping: Keeping
    stage: str
    kept: Kept
    task_set: TaskSet
    compute: Callable[[list[int], Advance], Arrays]
    advance: Advance
    room: int = 0

    @cached_property
    def rows(self) -> list[list[int]]:
        """The tasks of each part, which follow each other; all parts are about as large."""
        total, batch = len(self.task_set), self.keeping.batch
        most = batch * max(1, total // (PARTS * batch))
        return [part.tolist() for part in np.array_split(np.arange(total), -(-total // most))]

    def together(self) -> Arrays:
        """Computes what of them is for this process, and puts together those of all."""
        team = self.keeping.team
        if team.size == 1:  # no more than one part is in memory beside the result
            return self._joined(map(self._part, range(len(self.rows))))
        own = {number: self._part(number) for number in team.share(range(len(self.rows)))}
        return self._joined(
            team.sent(own.pop(number, None), team.owner(number)) for number in range(len(self.rows))
        )

    def forget(self) -> None:
        """Removes them, once the whole is kept."""
        if self.keeping.holds(self.kept):
            for number in range(len(self.rows)):
                self.keeping.cache.forget(self.kept.name, self._key(number))

    def _part(self, number: int) -> Arrays:
        """One part, computed or as it was kept."""
        rows, computed = self.rows[number], False

        def compute() -> Arrays:
            nonlocal computed
            computed = True
            return self._fitting(rows)

        own = self.kept.name, self._key(number)
        arrays = self.keeping.cache.get(*own, compute, worth_s=WORTH_S)
        if not computed:
            self.advance(len(rows), "kept from before")
        return arrays

    def _fitting(self, rows: list[int]) -> Arrays:
        """The arrays of some tasks, fewer at once where memory does not hold so many.

        Raises:
            IncompleteError: It does not hold one.
        """
        while True:
            size = self.room or len(rows)
            pieces = [rows[at : at + size] for at in range(0, len(rows), size)]
            try:
                found = [self.compute(piece, self.advance) for piece in pieces]
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
            # Outside the handler, which would keep alive what did not fit.
            self._make_room(min(size, self.keeping.batch))

    def _make_room(self, at_once: int) -> None:
        if at_once == 1:
            raise IncompleteError(
                self.stage,
                "one task alone does not fit into memory",
                "room for one",
                "use a machine with more, or smaller images or tasks",
            )
        self.room = at_once // 2
        self.keeping.messages.say(
            f"{self.stage}: out of memory with {at_once} tasks at once; goes on with {self.room}"
        )

    def _key(self, number: int) -> Key:
        rows = self.rows[number]
        return self.kept.part(part=[rows[0], rows[-1]])

    def _joined(self, parts: Iterable[Arrays]) -> Arrays:
        result: Arrays = {}
        filled: dict[str, int] = defaultdict(int)
        sizes = {len(self.rows[0]): len(self.task_set)}
        for part in parts:
            for name, values in part.items():
                if name not in result:
                    total = sizes.get(len(values), self.task_set.n_instances)
                    result[name] = np.empty((total, *values.shape[1:]), values.dtype)
                end = filled[name] + len(values)
                result[name][filled[name] : end] = values
                filled[name] = end
        return result
