"""How well every signal finds the labels and the tasks that ``plant`` changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from metaaudit.config.evaluate import DetectionConfig
from metaaudit.errors import ConfigError
from metaaudit.fidelity.detecting import Known
from metaaudit.fidelity.ranking import Flags, Floats, auroc, average_precision, precision_recall
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.workbench import Workbench
from metaaudit.problem import Problem
from metaaudit.training import Planted

QUALITY = ("AUROC", "average precision")


def check(problem: Problem, config: DetectionConfig) -> None:
    """Refuses tasks that are as they were.

    Raises:
        ConfigError: Nothing is planted.
    """
    _planted(problem)


def run(bench: Workbench, config: DetectionConfig) -> Result:
    """Audits tasks with planted errors and counts what is found.

    Raises:
        ConfigError: Nothing is planted.
    """
    planted = _planted(bench.problem)
    known = Known.of(bench)
    signals = _signals(planted.wrong, known.labels)
    share = float(planted.wrong.mean())
    mislabel = bench.config.mislabel
    tables = (
        Table(
            "signals",
            f"Finding {int(planted.wrong.sum())} changed labels among {len(planted.wrong)}",
            ("signal", *QUALITY),
            signals,
        ),
        Table(
            "tasks",
            "Finding tasks with changed labels",
            ("changed tasks are", "changed tasks", "other tasks", "signal", *QUALITY),
            list(_tasks(planted, known.tasks)),
        ),
        Table(
            "flags",
            f"What the rules of a run flag at a false-discovery rate of {mislabel.fdr:g}",
            ("rule", "there are", "flagged", "precision", "recall"),
            _flags(planted, known, mislabel.fdr, mislabel.noisy_share),
        ),
    )
    return Result(
        config.kind,
        "Which signals find the labels that were changed on purpose?",
        tables,
        (_figure(signals, share),),
        (
            f"{share:.1%} of the labels are changed; by chance AUROC is 0.5 and average precision "
            f"{share:.3g}.",
            f"Flags and label_noise follow mislabel.signal, which is {mislabel.signal}.",
            *([] if tables[1].rows else [_nothing_to_compare(planted)]),
            *known.warnings,
        ),
        details={
            "planted": {
                kind: [planted.clean.task_ids[row] for row in rows]
                for kind, rows in planted.by_kind.items()
            }
        },
    )


def _planted(problem: Problem) -> Planted:
    if problem.planted is None:
        raise ConfigError(
            "plant", "changes no label", "labels to look for", "add --plant KIND:RATE"
        )
    return problem.planted


def _signals(wrong: Flags, values: dict[str, Floats]) -> list[tuple[Value, ...]]:
    """The quality of each signal, the best AUROC first."""
    rows = [
        (name, auroc(wrong, one), average_precision(wrong, one)) for name, one in values.items()
    ]
    return [*sorted(rows, key=lambda row: -(row[1] or 0.0))]


def _tasks(planted: Planted, signals: dict[str, Floats]) -> Iterator[tuple[Value, ...]]:
    """Tasks changed as a whole against those that are not; flipped ones against unchanged ones."""
    n_tasks = len(planted.task_set)
    kinds = {kind: _marked(rows, n_tasks) for kind, rows in planted.by_kind.items()}
    whole = [marked for kind, marked in kinds.items() if kind != "flipped"]
    for kind, sought in kinds.items():
        others = ~np.any(list(kinds.values()) if kind == "flipped" else whole, axis=0)
        if not others.any():
            continue
        compared = sought | others
        for name, values in signals.items():
            part = sought[compared], values[compared]
            counts = int(sought.sum()), int(others.sum())
            yield kind, *counts, name, auroc(*part), average_precision(*part)


def _flags(
    planted: Planted, known: Known, fdr: float, noisy_share: float
) -> list[tuple[Value, ...]]:
    noise, n_tasks = known.noise, len(planted.task_set)
    sizes = [sum(task.shape) for task in planted.task_set.tasks]
    parts = np.split(planted.wrong, np.cumsum(sizes)[:-1])
    noisy = np.array([part.mean() > noisy_share for part in parts])
    rules = {
        "mislabeled": (noise.mislabeled, planted.wrong),
        "noisy": (noise.noisy_q <= fdr, noisy),
        "contradictory": (noise.contradictions.q_value <= fdr, _marked(planted.permuted, n_tasks)),
    }
    return [
        (rule, int(sought.sum()), int(flagged.sum()), *precision_recall(flagged, sought))
        for rule, (flagged, sought) in rules.items()
    ]


def _figure(signals: list[tuple[Value, ...]], share: float) -> Figure:
    names = tuple(str(row[0]) for row in signals)
    bars = tuple(
        Series(name, names, tuple(float(row[place] or 0.0) for row in signals))
        for place, name in enumerate(QUALITY, start=1)
    )
    levels = {"AUROC by chance": 0.5, "average precision by chance": share}
    return Figure("signals", "Finding changed labels", "signal", "quality", bars, levels)


def _nothing_to_compare(planted: Planted) -> str:
    n_tasks = len(planted.task_set)
    return f"All {n_tasks} tasks have changed labels: there are no others to tell them from."


def _marked(rows: tuple[int, ...], n_tasks: int) -> Flags:
    return np.isin(np.arange(n_tasks), rows)
