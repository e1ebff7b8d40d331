"""The task-Fisher: the total Hessian from the spread of the tasks' total gradients.

For a loss that is a negative log-likelihood the Hessian of the mean task loss is about the Fisher
information of one query instance, ``E[g g^T]``. A task's gradient is a mean over ``m`` instances,
so ``m D L_k (D L_k)^T`` estimates it, and the mean over tasks is ``(1/N) sum_k m_k g_k g_k^T``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.inputs.task_set import Ints


def task_fisher_factor(gradients: Tensor, query_sizes: Ints) -> Tensor:
    """``V [n_tasks, n_params]`` with ``V^T V = (1/N) sum_k m_k g_k g_k^T``, float64.

    Args:
        gradients: ``[n_tasks, n_params]`` total gradients ``g_k = D L_k``.
        query_sizes: ``[n_tasks]`` numbers of query instances ``m_k``.
    """
    sizes = torch.from_numpy(query_sizes).to(gradients.device, torch.float64)
    weights = (sizes / len(gradients)).sqrt()
    return gradients.double() * weights[:, None]
