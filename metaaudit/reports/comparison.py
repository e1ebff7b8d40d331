"""What changed from one run to another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.findings import Finding
from metaaudit.reports.headline import run_name
from metaaudit.reports.text import signed, without_folder
from metaaudit.runs.saved import SavedRun

ABSENT = "absent"
"""Stands for the value of a setting that one of the runs does not have."""


@dataclass(frozen=True)
class Comparison:
    """A run beside another one, which is mostly an earlier one.

    Attributes:
        other: Name of the other run's folder.
        appeared: Flagged findings of this run that the other lacks.
        vanished: Flagged findings of the other run that this one lacks.
        stayed: Flagged findings of both, as this run has them.
        rank_correlation: Spearman's, of the influence of the tasks in both, in [-1, 1]; none where
            there are fewer than two or all have the same influence.
        common_tasks: Tasks in both, by id.
        only_here: Tasks that the other run lacks.
        only_there: Tasks that this run lacks.
        settings: ``(dotted key of the configuration, value here, value there)`` where these differ.
        data_changed: Whether the training or the evaluation tasks differ in content.
        checkpoints_changed: Whether the checkpoints differ in content.
    """

    other: str
    appeared: tuple[Finding, ...]
    vanished: tuple[Finding, ...]
    stayed: tuple[Finding, ...]
    rank_correlation: float | None
    common_tasks: int
    only_here: int
    only_there: int
    settings: tuple[tuple[str, str, str], ...]
    data_changed: bool
    checkpoints_changed: bool


def compare(run: SavedRun, other: SavedRun) -> Comparison:
    """Compares a run with another one.

    Findings are the same where their fingerprints are; several with one fingerprint, as of tasks
    with the same content, match one by one.

    Args:
        run: The run at hand.
        other: What it is compared with.
    """
    here = [one for one in run.findings.findings if one.flagged]
    there = [one for one in other.findings.findings if one.flagged]
    stayed, appeared = _matched(here, there)
    _, vanished = _matched(there, here)
    influence = {row.task_id: row.influence for row in run.tasks}
    others = {row.task_id: row.influence for row in other.tasks}
    common = [task_id for task_id in influence if task_id in others]
    return Comparison(
        other=run_name(other),
        appeared=appeared,
        vanished=vanished,
        stayed=stayed,
        rank_correlation=spearman(
            [influence[task_id] for task_id in common], [others[task_id] for task_id in common]
        ),
        common_tasks=len(common),
        only_here=len(influence) - len(common),
        only_there=len(others) - len(common),
        settings=_settings(run.manifest["config"], other.manifest["config"]),
        data_changed=_data(run) != _data(other),
        checkpoints_changed=_checkpoints(run) != _checkpoints(other),
    )


def sentences(comparison: Comparison) -> list[str]:
    """The comparison in a few sentences, the first of which names the other run."""
    one, rank = comparison, comparison.rank_correlation
    changed = [
        *(["the tasks"] if one.data_changed else []),
        *(["the checkpoints"] if one.checkpoints_changed else []),
    ]
    return [
        f"Findings compared with {one.other}: {len(one.appeared):,} appeared, "
        f"{len(one.vanished):,} vanished, {len(one.stayed):,} stayed.",
        f"Tasks: {one.common_tasks:,} in both runs, {one.only_here:,} only in this one, "
        f"{one.only_there:,} only in the other"
        + ("." if rank is None else f"; rank correlation of their influence {signed(rank)}."),
        *([f"The content of {' and of '.join(changed)} differs."] if changed else []),
    ]


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation, in [-1, 1]; equal values share their mean rank.

    None where there are fewer than two values, all of one side are equal, or some are not finite.

    >>> spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
    0.5
    """
    if len(x) < 2 or not np.isfinite([x, y]).all():
        return None
    ranks = np.stack([_ranks(x), _ranks(y)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    size = float(np.sqrt(np.prod((ranks**2).sum(axis=1))))
    return float(np.clip(ranks[0] @ ranks[1] / size, -1.0, 1.0)) if size else None


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    _, which, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[which]
    return mean


def _matched(
    findings: Sequence[Finding], others: Sequence[Finding]
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Those that the others have too, and those that they lack."""
    left = Counter(one.fingerprint for one in others)
    both, alone = [], []
    for one in findings:
        if left[one.fingerprint]:
            left[one.fingerprint] -= 1
            both.append(one)
        else:
            alone.append(one)
    return tuple(both), tuple(alone)


def _settings(here: dict[str, Any], there: dict[str, Any]) -> tuple[tuple[str, str, str], ...]:
    ours, theirs = dict(_dotted(here)), dict(_dotted(there))
    pairs = ((key, ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in {**ours, **theirs})
    return tuple(sorted(pair for pair in pairs if pair[1] != pair[2]))


def _dotted(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _dotted(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _shown(inner)


def _shown(value: Any) -> str:
    return without_folder(value) if isinstance(value, str) else json.dumps(value)


def _data(run: SavedRun) -> list[str]:
    return [run.manifest["data"][part]["sha256"] for part in ("train", "eval")]


def _checkpoints(run: SavedRun) -> list[str]:
    return sorted(checkpoint["sha256"] for checkpoint in run.manifest["checkpoints"])
