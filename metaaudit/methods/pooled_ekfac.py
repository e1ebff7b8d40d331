"""EK-FAC on the query instances of all tasks, each at its task's adapted parameters."""

from __future__ import annotations

from collections.abc import Iterator

from metaaudit.bilevel import Adaptation, Advance, outer_bases
from metaaudit.cache import Arrays
from metaaudit.curvature import (
    Bases,
    Factors,
    Record,
    corrected,
    fisher_terms,
    record_tasks,
    summed,
)
from metaaudit.keeping import Kept
from metaaudit.stages import Stages

CACHED = "pooled-ekfac"


def pooled_ekfac(stages: Stages, train: Adaptation) -> Factors:
    """Eigenbasis and mean squared gradients of single query instances, over all tasks.

    Args:
        stages: Of the checkpoint.
        train: ``Partial``, so that its parameters are the network's.
    """
    assert stages.network is not None
    network = stages.network.over(train.params)
    terms = fisher_terms(train.objective.mean_loss, stages.problem.config.influence.fisher)
    task_set = train.task_set

    def records(advance: Advance) -> Iterator[Record]:
        for batch in train.batches():
            theta, data = train.adapted(batch), batch.data
            yield record_tasks(network, theta, data.query_x, data.query_y, terms)
            advance(len(batch.rows))

    def compute(advance: Advance) -> Arrays:
        bases = outer_bases(train, network, terms, advance)
        over_tasks = (
            {path: values.sum(0) for path, values in bases.squares(record).items()}
            for record in records(advance)
        )
        eigenvalues = corrected(summed(over_tasks), int(task_set.query_sizes.sum()))
        own = {f"{path}:eigenvalues": values for path, values in eigenvalues.items()}
        return {name: values.cpu().numpy() for name, values in {**bases.arrays(), **own}.items()}

    stored = stages.keeping.whole(pooled_stage(stages), compute, 2 * len(task_set))
    arrays = {name: stages.tensor(values) for name, values in stored.items()}
    eigenvalues = {path: arrays[f"{path}:eigenvalues"] for path in network.layers}
    return Factors(network, Bases.of_arrays(network, arrays), eigenvalues)


def pooled_stage(stages: Stages) -> Kept:
    """The stage that computes the factors at the adapted parameters."""
    return Kept(CACHED, "EK-FAC at the adapted parameters", stages.outer_key())
