"""The total Hessian by EK-FAC: the network's Kronecker eigenbasis, eigenvalues of total gradients.

A layer's block of the total Hessian is no Kronecker product, since adaptation mixes layers; but the
eigenbasis at the adapted parameters can be kept and the eigenvalues be fitted to the tasks' total
gradients, as the diagonal of the task-Fisher in that basis. It has full rank, which the task-Fisher
itself has not. Meta-parameters that belong to no layer have their own diagonal.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from metaaudit.bilevel.adaptation import Adaptation
from metaaudit.bilevel.progress import Advance
from metaaudit.curvature import Bases, Covariances, Factors, Network, record_tasks, summed
from metaaudit.curvature.network import Terms
from metaaudit.inputs.task_set import Ints


def outer_bases(
    adaptation: Adaptation, network: Network, terms: Terms, advance: Advance = lambda _: None
) -> Bases:
    """The eigenbasis of the pooled query instances, each at its task's adapted parameters.

    Args:
        adaptation: The training tasks and their adaptation.
        network: The layers.
        terms: Of the Fisher matrix.
        advance: Told of progress.
    """

    def covariances() -> Iterator[Covariances]:
        for batch in adaptation.batches():
            theta = adaptation.adapted(batch)
            record = record_tasks(network, theta, batch.data.query_x, batch.data.query_y, terms)
            yield Covariances.of(record).over_tasks()
            advance(len(batch.rows))

    sums = Covariances.total(covariances())
    return Bases.of(network, sums, next(iter(adaptation.params.values())))


def outer_factors(
    network: Network, bases: Bases, gradients: Tensor, query_sizes: Ints, block: int = 64
) -> Factors:
    """Eigenvalues ``(1/N) sum_k m_k (Q^T g_k)^2`` in a given basis.

    Args:
        network: The layers.
        bases: The basis ``Q``.
        gradients: ``[n_tasks, n_params]`` total gradients ``g_k``.
        query_sizes: ``[n_tasks]`` numbers of query instances ``m_k``.
        block: Tasks at once.
    """
    layout = network.layout
    weights = torch.from_numpy(query_sizes).to(gradients.device, torch.float64) / len(gradients)

    def squares() -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(gradients), block):
            some = slice(start, start + block)
            rotated = bases.rotate(network, layout, gradients[some])
            yield {
                path: torch.einsum("k,kgoi->goi", weights[some], matrix.double().square())
                for path, matrix in rotated.items()
            }

    return Factors(network, bases, summed(squares()))
