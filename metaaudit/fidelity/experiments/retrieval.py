"""Whether a training task, evaluated on, ranks itself most helpful (TLXML, 2501.14271)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from metaaudit.config.evaluate import CandidateConfig, RetrievalConfig
from metaaudit.fidelity.candidates import score_all
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.workbench import Workbench

Floats = npt.NDArray[np.float64]

SIGN = "Positive influence is harmful: the most helpful task, rank 1, has the lowest."


def run(bench: Workbench, config: RetrievalConfig) -> Result:
    """Evaluates on training tasks and looks where each ranks among all."""
    problem = bench.problem
    n_tasks = len(problem.train)
    count = min(config.tasks or n_tasks, n_tasks)
    itself = replace(problem, evaluation=problem.train.select(range(count)))
    bench = replace(bench, problem=itself)
    scored, left_out = score_all(bench, _on_each(config.candidates))
    ranks = {one.candidate.name: self_ranks(one.scores.task_influence) for one in scored}
    first = {name: float((own == 1).mean()) for name, own in ranks.items()}
    rows: list[tuple[Value, ...]] = [
        (name, first[name], float(own.mean()), float(np.median(own)), float(own.max()))
        for name, own in ranks.items()
    ]
    table = Table(
        "retrieval",
        f"Rank of {count} training tasks for their own query loss, among {n_tasks}",
        ("candidate", "share of rank 1", "mean rank", "median rank", "worst rank"),
        rows,
    )
    chance = f"By chance the share of rank 1 is {1 / n_tasks:.3g}, the mean rank {_mean(n_tasks)}."
    return Result(
        config.kind,
        "Does a training task rank itself most helpful?",
        (table,),
        (_figure(first, count, n_tasks),),
        (SIGN, chance, *left_out),
        details={"ranks": {name: own.tolist() for name, own in ranks.items()}},
    )


def self_ranks(influence: Floats) -> Floats:
    """Rank ``[n_targets]`` of task ``t`` on target ``t``, 1 the lowest; ties share their mean rank.

    Args:
        influence: ``[n_tasks, n_targets]`` on targets that are the first training tasks.
    """
    ranks: Floats = rankdata(influence, axis=0)
    return np.diagonal(ranks).copy()


def _mean(n_tasks: int) -> float:
    return (n_tasks + 1) / 2


def _on_each(candidates: Sequence[CandidateConfig] | None) -> list[CandidateConfig] | None:
    """The candidates with every training task as a target of its own."""
    if candidates is None:
        return None
    each = {"targets": "each"}
    return [one.model_copy(update={"influence": {**one.influence, **each}}) for one in candidates]


def _figure(first: dict[str, float], count: int, n_tasks: int) -> Figure:
    shares = np.array(list(first.values()))
    errors = np.sqrt(shares * (1 - shares) / count)
    series = Series("rank 1", tuple(first), tuple(shares.tolist()), tuple(errors.tolist()))
    return Figure(
        "retrieval",
        "Training tasks that rank themselves most helpful",
        "candidate",
        "share of rank 1",
        (series,),
        {"chance": 1 / n_tasks},
    )
