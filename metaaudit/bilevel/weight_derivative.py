"""How ``u . D L_k`` depends on the weight of each instance: all instances of a task at once.

``d L_k / d(w, v)`` is a vector with one entry an instance; what is wanted is its derivative along
``u``. For a query instance it equals ``(1/m) u . D loss(z~_j; theta_k)``, for a support instance
``d/dw_i [u . D L_k]`` (the paper's Stages 1 and 2 together, with nothing solved per item).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from metaaudit.bilevel.adaptation import Adaptation
from metaaudit.bilevel.progress import Advance


def weight_derivatives(
    adaptation: Adaptation, direction: Tensor, advance: Advance = lambda _: None
) -> npt.NDArray[np.float64]:
    """``d/d omega [u . D L_k]`` for the weight ``omega`` of every instance.

    Args:
        adaptation: The tasks and their adaptation.
        direction: ``u [n_params]``.
        advance: Told of progress.

    Returns:
        ``[n_instances]``, in the task set's order of instances.
    """
    tangent, scale = adaptation.unit_tangent(direction)
    result = np.empty(adaptation.task_set.n_instances)
    for batch in adaptation.batches():
        values = adaptation.weight_derivatives(batch, tangent)
        result[batch.instances] = scale * values.double().cpu().numpy()
        advance(len(batch.rows))
    return result
