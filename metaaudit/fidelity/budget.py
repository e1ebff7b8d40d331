"""What is still to be begun before a time is over."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Budget:
    """The time left, and what a piece of work takes of it by the median of those done.

    Work has a size, such as the number of its steps, to which its time is proportional.

    Attributes:
        deadline: On the clock of ``time.monotonic``; absent: there is no end.
        paces: Seconds for each unit of size, of what was done in this run.
        earlier: Those of what another run did, which count until anything is done.
    """

    deadline: float | None
    paces: list[float] = field(default_factory=list)
    earlier: list[float] = field(default_factory=list)

    def expected(self, size: float) -> float:
        """Seconds that work takes; 0 while nothing is known."""
        known = self.paces or self.earlier
        return size * median(known) if known else 0.0

    def allows(self, size: float) -> bool:
        """Whether work that is begun now would be done in time."""
        return self.deadline is None or time.monotonic() + self.expected(size) <= self.deadline

    def patience(self, sizes: Iterable[float]) -> float | None:
        """Seconds until work that is running has to be given up: its own time past the deadline."""
        if self.deadline is None or not (self.paces or self.earlier):
            return None
        last = self.deadline + max(self.expected(size) for size in sizes)
        return max(0.0, last - time.monotonic())
