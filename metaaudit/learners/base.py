"""What every learner offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from metaaudit.models import Params

Forward = Callable[[Params, Tensor], Tensor]
"""``(params, inputs [batch, ...]) -> outputs [batch, ways]``."""

InstanceLoss = Callable[[Tensor, Tensor], Tensor]
"""``(outputs [batch, ways], labels [batch]) -> losses [batch]``."""


class Learner(Protocol):
    """Adapts meta-parameters to a task, differentiably in everything but the labels."""

    def adapt(
        self,
        forward: Forward,
        loss: InstanceLoss,
        params: Params,
        support_x: Tensor,
        support_y: Tensor,
        weights: Tensor,
    ) -> Params:
        """Returns the adapted parameters ``theta(lambda; S, w)``.

        Args:
            forward: The model as a function of its parameters.
            loss: Loss of each instance.
            params: Meta-parameters ``lambda``.
            support_x: ``[n, ...]``.
            support_y: ``[n]``.
            weights: ``[n]`` instance weights ``w``; the inner loss is ``(1/n) sum_i w_i loss_i``,
                so a weight of 0 removes an instance and leaves ``n`` as it is.
        """
        ...
