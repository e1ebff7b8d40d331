"""Self-influence: how much an instance counts for its own loss, by EK-FAC.

``g^T (F + damping)^-1 g`` with the gradient ``g`` of the instance's loss at its task's adapted
parameters and ``F`` by EK-FAC over all support and query instances, each at its own task's. A
large value is an instance that only itself explains, which a wrong label often is (Koh and Liang,
2017).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from metaaudit.bilevel import Adaptation, Advance
from metaaudit.curvature import (
    Bases,
    Covariances,
    Factors,
    Network,
    Record,
    corrected,
    fisher_terms,
    record_tasks,
    summed,
)
from metaaudit.inputs.task_set import Ints


def self_influence(
    adaptation: Adaptation, network: Network, advance: Advance = lambda _: None
) -> npt.NDArray[np.float64]:
    """Self-influence of every instance.

    The Fisher matrix is the empirical one, whose gradients are needed anyway, and its damping the
    heuristic one, a tenth of each layer's mean eigenvalue.

    Args:
        adaptation: The tasks and their adaptation.
        network: The layers.
        advance: Told of progress.

    Returns:
        ``[n_instances]``, in the task set's order of instances.
    """
    sums = Covariances.total(
        Covariances.of(record).over_tasks() for _, record, _ in _records(adaptation, network)
    )
    bases = Bases.of(network, sums, next(iter(adaptation.params.values())))
    squares = summed(
        {path: values.sum(0) for path, values in bases.squares(record).items()}
        for _, record, _ in _records(adaptation, network)
    )
    factors = Factors(network, bases, corrected(squares, sums.count))
    inverse = factors.inverse_eigenvalues("heuristic")
    result = np.empty(adaptation.task_set.n_instances)
    for instances, record, done in _records(adaptation, network):
        result[instances] = factors.quadratic(inverse, record).double().cpu().numpy()
        advance(done)
    return result


def _records(adaptation: Adaptation, network: Network) -> Iterator[tuple[Ints, Record, int]]:
    """The gradients of support sets and of query sets, whose they are, and how many tasks end."""
    terms = fisher_terms(adaptation.objective.mean_loss, "empirical")
    for batch in adaptation.batches():
        theta = adaptation.adapted(batch)
        start = 0
        for x, y in batch.data.sets:
            instances = batch.instances[:, start : start + y.shape[1]]
            start += y.shape[1]
            done = len(batch.rows) if start == batch.instances.shape[1] else 0
            yield instances, record_tasks(network, theta, x, y, terms), done
