"""How ``u . D L_k`` depends on the weight of each instance: all instances in one pass.

``d L_k / d(w, v)`` is a vector with one entry an instance; its derivative along ``u`` is one
forward-mode pass over that reverse pass, whatever the number of instances or parameters. For a
query instance it equals ``(1/m) u . D loss(z~_j; theta_k)``, for a support instance ``d/dw_i [u . D
L_k]`` (the paper's Stages 1 and 2 together, with nothing solved per item).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import grad, jvp

from metaaudit.bilevel.batch import Batching, TaskTensors
from metaaudit.bilevel.objective import Objective, over_tasks
from metaaudit.bilevel.parameters import Layout
from metaaudit.bilevel.total_gradient import Advance
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params


def weight_derivatives(
    objective: Objective,
    params: Params,
    direction: Tensor,
    task_set: TaskSet,
    batching: Batching,
    advance: Advance = lambda _: None,
) -> npt.NDArray[np.float64]:
    """``d/d omega [u . D L_k]`` for the weight ``omega`` of every instance.

    Args:
        objective: The bilevel objective.
        params: Meta-parameters ``lambda``.
        direction: ``u [n_params]``.
        task_set: The tasks.
        batching: How many are computed at once, and where.
        advance: Told of progress.

    Returns:
        ``[n_instances]``, in the task set's order of instances.
    """
    scale = float(direction.norm()) or 1.0  # keeps tangents of order 1 in single precision
    tangent = Layout.of(params).unflatten(direction / scale, params)
    result = np.empty(task_set.n_instances)

    def along(params: Params, w: Tensor, v: Tensor, data: TaskTensors) -> Tensor:
        def by_weight(params: Params) -> Tensor:
            return torch.cat(grad(objective.task_loss, argnums=(1, 2))(params, w, v, data))

        derivative: Tensor = jvp(by_weight, (params,), (tangent,))[1]
        return derivative

    for batch in batching.batches(task_set):
        values = over_tasks(along, params, batch.data)
        result[batch.instances] = scale * values.double().cpu().numpy()
        advance(len(batch.rows))
    return result
