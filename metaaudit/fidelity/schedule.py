"""Which retraining is done when and where, within the time, and what is in the cache already."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaaudit.cache import Arrays, FactorCache
from metaaudit.console import Advance, Messages
from metaaudit.errors import MetaauditError, is_interrupt
from metaaudit.fidelity.budget import Budget
from metaaudit.fidelity.processes import Say, Workers
from metaaudit.fidelity.training_run import TrainingRun, Work
from metaaudit.ranks import rank, world_size

NAME = "retraining"
"""Of the arrays in the cache."""

AGAIN = "what is done is kept: the same command with a new --run goes on"

NO_TIME = Budget(-math.inf)


@dataclass(frozen=True)
class Job:
    """A retraining that may have to be done.

    Attributes:
        key: All that it depends on.
        work: What to do.
        name: What to call it.
    """

    key: dict[str, Any]
    work: Work
    name: str

    @property
    def size(self) -> int:
        """What its time is proportional to: how often it sees a task."""
        return self.work.training.epochs * len(self.work.tasks)


@dataclass(frozen=True)
class Done:
    """The arrays of a retraining, and what the cache warned of."""

    arrays: Arrays
    warnings: list[str]


class TimeIsUpError(Exception):
    """A retraining was not in the cache, and is not to be begun any more.

    Attributes:
        warnings: What the cache warned of.
    """

    def __init__(self, warnings: list[str]) -> None:
        super().__init__()
        self.warnings = warnings


@dataclass(frozen=True)
class CachedRun:
    """Does a job, unless the cache has it or another process gets it done meanwhile.

    Attributes:
        run: Does it.
        folder: The cache's folder.
        limit: Bytes that the cache may have.
    """

    run: TrainingRun
    folder: Path
    limit: float

    def holds(self, job: Job) -> bool:
        """Whether the cache seems to have it."""
        return FactorCache(self.folder, limit=self.limit).holds(NAME, job.key)

    def __call__(self, job: Job, say: Say, budget: Budget | None = None) -> Done:
        """Does a job.

        Args:
            job: What to do.
            say: Told of a wait for another process.
            budget: What it has to be begun within; absent: there is time.

        Raises:
            TimeIsUpError: It would have to be begun, and there is no time.
            IncompleteError: A loss is not finite.
        """

        def compute() -> Arrays:
            if budget is not None and not budget.allows(job.size):
                raise TimeIsUpError(cache.warnings)
            return self.run.arrays(job.work)

        cache = FactorCache(self.folder, say=say, limit=self.limit)
        return Done(cache.get(NAME, job.key, compute, label=job.name), cache.warnings)


@dataclass
class Schedule:
    """Some jobs, and what is known of them so far.

    Attributes:
        jobs: What is wanted; no two are the same.
        cached: Does one.
        budget: The time.
        messages: Told of progress.
        warnings: What the cache warned of.
        found: Arrays by the number of the job.
    """

    jobs: Sequence[Job]
    cached: CachedRun
    budget: Budget
    messages: Messages
    warnings: list[str] = field(default_factory=list)
    found: dict[int, Arrays] = field(default_factory=dict)

    def run(self, processes: int) -> list[Arrays | None]:
        """Looks all up and does what is missing.

        Args:
            processes: How many work at once; 1: this one. Under ``torchrun`` it is this one.

        Returns:
            Arrays in the order of the jobs; ``None`` for those there was no time for.

        Raises:
            IncompleteError: A loss is not finite, or a process died.
        """
        total = len(self.jobs)
        self._pick_up(range(total))
        for number, arrays in self.found.items():
            self.budget.earlier.append(float(arrays["seconds"]) / self.jobs[number].size)
        if self.found:
            self.messages.say(f"retrain: {len(self.found)} of {total} are in the cache")
        missing = [number for number in range(total) if number not in self.found]
        if missing:
            self._do(missing, 1 if world_size() > 1 else min(processes, len(missing)))
        left = total - len(self.found)
        if left:
            self.messages.say(f"retrain: there was no time for {left} of {total}; {AGAIN}")
        return [self.found.get(number) for number in range(total)]

    def _do(self, missing: list[int], processes: int) -> None:
        with self.messages.stage("retrain", len(missing)) as advance:
            try:
                if processes == 1:
                    self._here(missing, advance)
                else:
                    self._elsewhere(missing, processes, advance)
            except (KeyboardInterrupt, Exception) as error:
                if is_interrupt(error):
                    self.messages.say(f"retrain: {len(self.found)} of {len(self.jobs)}; {AGAIN}")
                raise

    def _here(self, missing: Sequence[int], advance: Advance) -> None:
        for number in turns(missing):
            if number in self.found:
                continue
            job = self.jobs[number]
            try:
                done = self.cached(job, self.messages.say, self.budget)
            except TimeIsUpError as late:
                self.warnings += late.warnings
                continue
            except MetaauditError as error:
                raise type(error)(job.name, str(error)) from None
            self._take(number, done, advance)
            if world_size() > 1:
                self._pick_up(missing, advance)

    def _elsewhere(self, missing: Sequence[int], processes: int, advance: Advance) -> None:
        queue = deque(missing)
        threads = self.cached.run.config.compute.threads
        names = [job.name for job in self.jobs]
        with Workers(processes, self.cached, threads, names, self.messages.say) as workers:
            while True:
                while queue and workers.idle and self.budget.allows(self.jobs[queue[0]].size):
                    number = queue.popleft()
                    workers.give(number, self.jobs[number])
                if not workers.busy:
                    return
                timeout = self.budget.patience(self.jobs[number].size for number in workers.busy)
                if timeout == 0:
                    return
                for number, done in workers.results(timeout):
                    self._take(number, done, advance)

    def _take(self, number: int, done: Done, advance: Advance) -> None:
        self.found[number] = done.arrays
        self.warnings += done.warnings
        self.budget.paces.append(float(done.arrays["seconds"]) / self.jobs[number].size)
        advance(1, f"loss {done.arrays['losses'].mean():.3f}")

    def _pick_up(self, numbers: Iterable[int], advance: Advance = lambda *_: None) -> None:
        """Takes from the cache what it has by now."""
        for number in numbers:
            if number in self.found or not self.cached.holds(self.jobs[number]):
                continue
            try:
                done = self.cached(self.jobs[number], self.messages.say, NO_TIME)
            except TimeIsUpError as late:  # what was there is damaged
                self.warnings += late.warnings
                continue
            self.found[number] = done.arrays
            self.warnings += done.warnings
            advance(1)


def turns(missing: Sequence[int]) -> list[int]:
    """This process's own share, then those of others from their ends, where it meets them last."""
    count, own = world_size(), rank()
    others = [number for number in missing if number % count != own]
    return [*(number for number in missing if number % count == own), *reversed(others)]
