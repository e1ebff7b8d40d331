"""How long an audit will take, and how much memory and disk, from one of a few of its tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import psutil

from metaaudit.audit import Audit
from metaaudit.bilevel import LOOKED_AT
from metaaudit.cache import FactorCache, Item, items
from metaaudit.console import silent
from metaaudit.inputs.task_set import TaskSet
from metaaudit.measuring import measure
from metaaudit.methods import pooled_ekfac
from metaaudit.methods.total import SCALE_STAGE
from metaaudit.planning import planned
from metaaudit.problem import Problem
from metaaudit.room import task_bytes

FEW = 2
"""Tasks of each set that are rehearsed with."""

FIXED = {"outer-ekfac", pooled_ekfac.CACHED, "steps"}
"""What is as large for few tasks as for many."""

COPIES = 3
"""What is computed of all tasks is held as it was computed and, to be solved for, in float64."""


@dataclass(frozen=True)
class Estimate:
    """What an audit is going to need, about.

    Attributes:
        seconds: Of every stage that is to compute, by name.
        memory: Bytes at the peak.
        disk: Bytes that the cache will grow by.
    """

    seconds: dict[str, float]
    memory: float
    disk: float


def rehearsed(audit: Audit) -> Estimate:
    """Goes through the stages with a few tasks, twice, and scales up the second time.

    What the first time takes beyond the second is what torch does once. Stages are taken to be
    linear in the instances, and iterative solves to need as many products as for the few.

    Args:
        audit: With everything loaded and nothing computed.

    Raises:
        MetaauditError: The few tasks cannot be scored.
    """
    few = _of_few_tasks(audit.problem)
    first = _Rehearsal.of(audit, few).seconds
    second = _Rehearsal.of(audit, few)
    held = {
        stage
        for number in range(len(audit.weights))
        for stage, there in planned(audit.stages(number)).items()
        if there
    }
    scale = _Scale.between(few, audit.problem)
    seconds = {
        stage: max(0.0, first[stage] - spent) + spent * scale.of(stage)
        for stage, spent in second.seconds.items()
        if stage not in held
    }
    stored = {
        stage: size.content * scale.of(stage) + size.rest for stage, size in second.sizes.items()
    }
    loaded = psutil.Process().memory_info().rss
    working = audit.problem.batching.size * task_bytes(audit.problem)
    return Estimate(
        seconds=seconds,
        memory=loaded + working + COPIES * sum(stored.values()),
        disk=sum(size for stage, size in stored.items() if stage not in held),
    )


@dataclass(frozen=True)
class _Size:
    """Bytes of a file of the cache.

    Attributes:
        content: Of its arrays, which grow with the tasks.
        rest: Of all else.
    """

    content: int
    rest: int

    @classmethod
    def of(cls, item: Item) -> _Size:
        with h5py.File(item.path) as file:
            content = sum(int(file[name].nbytes) for name in file)
        return cls(content, item.size - content)


@dataclass(frozen=True)
class _Rehearsal:
    """One time through.

    Attributes:
        seconds: Of every stage.
        sizes: Of what every stage leaves on disk, where that grows with the tasks.
    """

    seconds: dict[str, float]
    sizes: dict[str, _Size]

    @classmethod
    def of(cls, audit: Audit, few: Problem) -> _Rehearsal:
        messages = silent()
        with TemporaryDirectory() as folder:
            cache = FactorCache(Path(folder), limit=float("inf"))
            rehearsal = replace(audit, problem=few, cache=cache, messages=messages)
            for number in range(len(audit.weights)):
                measure(rehearsal.stages(number))
            grown = [item for item in items(cache.folder) if item.name not in FIXED]
            sizes = {item.key: _Size.of(item) for item in grown}
        keys = {stage: use.key[:32] for stage, use in cache.uses.items()}
        by_stage = {stage: sizes[key] for stage, key in keys.items() if key in sizes}
        return cls(messages.timings, by_stage)


@dataclass(frozen=True)
class _Scale:
    """How many times as much there is to do.

    Attributes:
        training: In stages over the training tasks.
        evaluation: In stages over the evaluation tasks.
        looked_at: Where the curvature is compared along the adjoint, over some tasks alone.
    """

    training: float
    evaluation: float
    looked_at: float

    @classmethod
    def between(cls, few: Problem, every: Problem) -> _Scale:
        return cls(
            every.train.n_instances / few.train.n_instances,
            every.evaluation.n_instances / few.evaluation.n_instances,
            min(LOOKED_AT, len(every.train)) / len(few.train),
        )

    def of(self, stage: str) -> float:
        if stage.startswith(SCALE_STAGE):
            return self.looked_at
        return self.evaluation if "of evaluation tasks" in stage else self.training


def _of_few_tasks(problem: Problem) -> Problem:
    def few(task_set: TaskSet) -> TaskSet:
        count = min(FEW, len(task_set))
        return task_set.select(np.linspace(0, len(task_set) - 1, count).astype(int).tolist())

    return replace(problem, train=few(problem.train), evaluation=few(problem.evaluation))
