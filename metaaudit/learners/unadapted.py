"""No adaptation: an ordinary classifier, of which the bilevel objective is the training loss."""

from __future__ import annotations

from dataclasses import dataclass

from metaaudit.learners.base import Forward, InstanceLoss, Learner, Support
from metaaudit.models import Params


@dataclass(frozen=True)
class Unadapted(Learner):
    """``theta = lambda``, whatever the support.

    Total gradients and the total Hessian are then those of the network itself, and every influence
    is the classical one (Koh and Liang, 2017).
    """

    def adapt(
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """See ``Learner.adapt``."""
        return params
