"""``metaaudit score --dry-run``: what a run would do, and what it would need."""

from __future__ import annotations

from pathlib import Path

from rich.filesize import decimal

from metaaudit.audit import Audit, prepared
from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.errors import MetaauditError
from metaaudit.planning import planned
from metaaudit.rehearsal import FEW, rehearsed
from metaaudit.room import free_bytes
from metaaudit.runs.atomic import check_new

Lines = list[tuple[str, str]]

LONGEST = 3
"""Stages that are named with their time."""


def plan(config: Config, folder: Path, messages: Messages) -> Lines:
    """What ``score`` would do, as ``(what, how)`` lines; keeps nothing.

    Raises:
        UsageError: Something that the configuration names cannot be used.
    """
    check_new(folder)
    audit = prepared(config, messages, keep=False)
    problem = audit.problem
    return [
        ("training tasks", f"{len(problem.train)}, {problem.train.n_instances} instances"),
        ("evaluation tasks", f"{len(problem.evaluation)}"),
        ("checkpoints", f"{len(audit.weights)}"),
        ("meta-parameters", f"{sum(p.numel() for p in audit.weights[0].params.values())}"),
        ("device", f"{problem.batching.device}, {config.compute.dtype}"),
        ("tasks at once", f"{problem.batching.size}"),
        *_stages(audit),
        ("solve" if config.influence.solves else "method", _solve(audit)),
        ("factor cache", str(audit.cache.folder)),
        ("run folder", str(folder)),
        *_needs(audit, messages),
        *(("warning", warning) for warning in problem.warnings),
        *(("warning", warning) for one in audit.weights for warning in one.warnings),
    ]


def _stages(audit: Audit) -> Lines:
    told = {True: "from the cache", False: "to compute", None: "after the choice of steps"}
    return [
        (stage, told[held])
        for number in range(len(audit.weights))
        for stage, held in planned(audit.stages(number)).items()
    ]


def _solve(audit: Audit) -> str:
    influence = audit.problem.config.influence
    n_targets = len(audit.problem.evaluation) if influence.targets == "each" else 1
    if not influence.solves:
        return f"{influence.method} for {n_targets} targets"
    what = influence.curvature if influence.method == "task-if" else influence.method
    return f"{what} by {influence.solver} for {n_targets} targets"


def _needs(audit: Audit, messages: Messages) -> Lines:
    """Time, memory and disk."""
    try:
        with messages.stage("rehearsal"):
            need = rehearsed(audit)
    except MetaauditError as error:
        return [("time", f"not estimated, since {FEW} tasks alone cannot be scored: {error}")]
    longest = sorted(need.seconds.items(), key=lambda item: -item[1])[:LONGEST]
    named = ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in longest)
    free = decimal(free_bytes(audit.problem.batching.device))
    return [
        ("time", f"about {_duration(sum(need.seconds.values()))} ({named}, ...)"),
        ("memory", f"about {decimal(int(need.memory))}; {free} are free"),
        ("disk", f"about {decimal(int(need.disk))} in the cache"),
    ]


def _duration(seconds: float) -> str:
    """A time as one would say it.

    >>> _duration(4.2), _duration(200), _duration(9000)
    ('4 s', '3 min 20 s', '2 h 30 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
