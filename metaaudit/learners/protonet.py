"""Prototypical networks (Snell et al., 2017) as networks whose last layer the support gives.

The squared distance to a prototype ``c`` is ``|f|^2 - 2 c.f + |c|^2``, and what is the same for all
classes does not change a softmax. So the softmax over negative distances is that of a linear layer
with weight ``2 (c - m)`` and bias ``-(c - m).(c + m)``, for any ``m``; with the mean feature for
``m``, no large numbers cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metaaudit.learners.base import Forward, InstanceLoss, Learner, Support
from metaaudit.learners.classes import indicators, without_absent
from metaaudit.models import Head, Params


@dataclass(frozen=True)
class ProtoNet(Learner):
    """Each class is the weighted mean of its support features.

    Attributes:
        head: The network, cut before the layer that the prototypes take the place of.
    """

    head: Head

    def adapt(
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """See ``Learner.adapt``. A class all of whose weights are 0 is at the mean of the rest."""
        features = self.head.features(params, support.inputs)
        member = indicators(support.labels, self.head.ways).to(features)
        each = support.weights[:, None] * member
        count = each.sum(0)[:, None]
        middle = (support.weights @ features) / support.weights.sum()
        prototypes = torch.where(
            count > 0, each.T @ features / torch.where(count > 0, count, 1.0), middle
        )
        apart, together = prototypes - middle.detach(), prototypes + middle.detach()
        bias = without_absent(-(apart * together).sum(1), support.labels)
        return {**params, self.head.weight: 2 * apart, self.head.bias: bias}

    def meta_parameters(self, initial: Params) -> Params:
        """All but the last layer."""
        return self.head.without(initial)
