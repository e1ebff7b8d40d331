"""How many tasks memory holds at once, and what else there is room for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from metaaudit.bilevel import peak_bytes, total_gradients
from metaaudit.cache import Arrays, FactorCache
from metaaudit.curvature import code_hash
from metaaudit.problem import Problem
from metaaudit.team import ALONE, Team

NAME = "task-batch"

SHARE = 0.5
"""Of the free memory, for the tasks that are computed at once."""

OVER_GRADIENT = 4
"""Memory of the largest stage, instance influence, over the bytes counted of a total gradient.

Forward mode carries a tangent beside every tensor, and the allocator adds to the count.
"""

CGROUP = Path("/sys/fs/cgroup")


def with_room(
    problem: Problem, cache: FactorCache, team: Team = ALONE, *, keep: bool = True
) -> Problem:
    """The problem with as many tasks at once as fit, where that is left to us.

    What was found stays until ``free_again``: an interrupted run goes on with the same number,
    whatever is free then, and ends with the same bytes.

    Args:
        problem: Tasks, model and learner.
        cache: Where the number is kept.
        team: The processes that share the work, all with the number of the first.
        keep: Whether the number is kept, for when the run is interrupted.
    """
    if problem.config.compute.task_batch != "auto":
        return problem
    most = problem.batching.size

    def compute() -> Arrays:
        fit = int(SHARE * free_bytes(problem.batching.device) / task_bytes(problem))
        return {"task_batch": np.array(max(1, min(most, fit)))}

    own, key = None, _key(problem)
    if team.first:
        known = keep or cache.holds(NAME, key)
        own = cache.get(NAME, key, compute) if known else compute()
    found = int(team.sent(own)["task_batch"])
    return replace(problem, batching=replace(problem.batching, size=found))


def free_again(problem: Problem, cache: FactorCache) -> None:
    """Forgets the number once a run is whole: the next one may find more room."""
    cache.forget(NAME, _key(problem))


def task_bytes(problem: Problem) -> int:
    """Memory that the largest training task takes in the stage that takes most, about."""
    sizes = [sum(task.shape) for task in problem.train.tasks]
    largest = problem.unrolled(problem.template, problem.train).over([int(np.argmax(sizes))])
    return OVER_GRADIENT * peak_bytes(lambda: total_gradients(largest))


def free_bytes(device: torch.device) -> int:
    """Memory that is free for this process, on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no such group, or one without a limit: "max"
        limit = int((CGROUP / "memory.max").read_text())
        free = min(free, limit - int((CGROUP / "memory.current").read_text()))
    return max(free, 0)


def _key(problem: Problem) -> dict[str, Any]:
    """All that the number depends on, but what is free."""
    config = problem.config
    return {
        "code": code_hash(),
        "torch": torch.__version__,
        "device": problem.batching.device.type,
        "dtype": config.compute.dtype,
        "model": [config.model.model_dump(mode="json"), problem.model.source],
        "learner": config.learner.model_dump(mode="json"),
        "inputs": [
            list(problem.train.pool.input_shape),
            max(sum(task.shape) for task in problem.train.tasks),
        ],
    }
