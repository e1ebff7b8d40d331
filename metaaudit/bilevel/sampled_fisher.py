"""The total Hessian's Gauss-Newton part from a few random gradients a task.

For a negative log-likelihood the Gauss-Newton matrix of ``L_k`` is the Fisher information of its
queries, ``(1/m) sum_j sum_c t_jc t_jc^T`` with one term ``t_jc`` a query and a class, taken through
the network and through the adaptation. With independent signs ``e_jc = +-1`` the one vector
``sum_jc e_jc t_jc`` has that sum as its second moment (Hutchinson, 1989), so a few of them a task
stand for all of its ``m * classes`` terms, and the matrix has low rank and is solved for directly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from metaaudit.bilevel.adaptation import Adaptation
from metaaudit.bilevel.batch import TaskBatch
from metaaudit.bilevel.progress import Advance
from metaaudit.curvature.network import Terms
from metaaudit.models import pullback


def sampled_fisher_rows(
    adaptation: Adaptation,
    terms: Terms,
    probes: int,
    seed: int,
    advance: Advance = lambda _: None,
    *,
    first: int = 0,
) -> Tensor:
    """``V_k [probes, n_params]`` of every task: ``[n_tasks, probes, n_params]``.

    The expectation of ``V_k^T V_k`` over the signs is ``J_k^T C_k J_k``.

    Args:
        adaptation: The training tasks and their adaptation.
        terms: Of the Fisher matrix.
        probes: Random gradients a task.
        seed: Of the signs; those of a task depend on its position alone.
        advance: Told of progress.
        first: Position of the first of these tasks, where they are a part of some set.
    """
    n_tasks = len(adaptation.task_set)
    rows: Tensor | None = None
    for batch in adaptation.batches():
        found = _rows(adaptation, terms, batch, probes, (seed, first))
        m = batch.data.query_y.shape[1]
        if rows is None:
            rows = found.new_empty(n_tasks, *found.shape[1:])
        rows[torch.from_numpy(batch.rows).to(found.device)] = found / (m * probes) ** 0.5
        advance(len(batch.rows))
    assert rows is not None  # a task set has tasks
    return rows


def fisher_factor(rows: Tensor) -> Tensor:
    """``V [n_tasks * probes, n_params]``, whose ``V^T V`` is the mean of ``V_k^T V_k``.

    Args:
        rows: ``[n_tasks, probes, n_params]``.
    """
    factor: Tensor = rows.flatten(0, 1) / len(rows) ** 0.5
    return factor


def _rows(
    adaptation: Adaptation, terms: Terms, batch: TaskBatch, probes: int, seed: tuple[int, int]
) -> Tensor:
    """``[batch, probes, n_params]``, one probe at a time: memory stays that of a gradient."""
    objective, data, layout = adaptation.objective, batch.data, adaptation.layout
    linearised = adaptation.linearise(batch)
    outputs, pull = pullback(
        lambda theta: vmap(objective.forward)(theta, data.query_x), linearised.theta
    )
    each = vmap(terms)(outputs.detach(), data.query_y)
    signs = torch.from_numpy(_signs(batch, (probes, *each.shape[1:3]), *seed)).to(each)
    found = [
        layout.flatten(linearised.pull(pull((signs[:, probe, ..., None] * each).sum(1)))).detach()
        for probe in range(probes)
    ]
    return torch.stack(found, dim=1)


def _signs(batch: TaskBatch, shape: tuple[int, ...], seed: int, first: int) -> np.ndarray:
    """``[batch, *shape]`` of 1 and -1."""
    each = [np.random.default_rng([seed, first + row]).integers(0, 2, shape) for row in batch.rows]
    return 2.0 * np.stack(each) - 1.0
