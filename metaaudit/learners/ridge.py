"""A head by ridge regression on the support features, as in R2-D2 (Bertinetto et al., 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from metaaudit.learners.base import Forward, InstanceLoss, Learner, Support
from metaaudit.learners.classes import indicators, without_absent
from metaaudit.models import Head, Params

LOG_L2, LOG_SCALE = "ridge.log_l2", "ridge.log_scale"


@dataclass(frozen=True)
class Ridge(Learner):
    """``W = argmin (1/n) sum_i w_i |f_i W - y_i|^2 + l2 |W|^2``, outputs ``scale f W``.

    ``y_i`` is the one-hot label and ``f_i`` ends with a 1, for a bias. The penalty and the scale
    are meta-parameters, as logarithms. R2-D2's additive adjustment is left out: cross-entropy does
    not see it.

    Attributes:
        l2: The penalty that meta-training starts from.
        scale: The scale that it starts from.
        head: The network, cut before the layer that the solution takes the place of.
    """

    l2: float
    scale: float
    head: Head

    def adapt(
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """See ``Learner.adapt``."""
        features = self.head.features(params, support.inputs)
        # The system can be as badly conditioned as l2 is small.
        one = features.new_ones(len(features), 1)
        rows = torch.cat([features, one], dim=1).double()
        targets = indicators(support.labels, self.head.ways).to(rows)
        each = support.weights.to(rows) / len(rows)
        # The dual form, n x n: few-shot features are wider than there are instances. Without square
        # roots of the weights, whose derivative at 0 is infinite.
        system = (rows @ rows.T) * each
        identity = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
        dual = torch.linalg.solve(system + params[LOG_L2].double().exp() * identity, targets)
        solution = (rows.T * each) @ dual * params[LOG_SCALE].double().exp()
        weight, bias = solution[:-1].T.to(features), solution[-1].to(features)
        network = {k: p for k, p in params.items() if k not in self.own}
        bias = without_absent(bias, support.labels)
        return {**network, self.head.weight: weight, self.head.bias: bias}

    def meta_parameters(self, initial: Params) -> Params:
        """All but the last layer, and penalty and scale."""
        like = next(iter(initial.values()))
        own = {LOG_L2: math.log(self.l2), LOG_SCALE: math.log(self.scale)}
        return {**self.head.without(initial), **{k: like.new_tensor(v) for k, v in own.items()}}

    @property
    def own(self) -> tuple[str, ...]:
        """Penalty and scale."""
        return (LOG_L2, LOG_SCALE)
