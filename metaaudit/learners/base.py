"""What every learner offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from metaaudit.models import Params

Forward = Callable[[Params, Tensor], Tensor]
"""``(params, inputs [batch, ...]) -> outputs [batch, ways]``."""

InstanceLoss = Callable[[Tensor, Tensor], Tensor]
"""``(outputs [batch, ways], labels [batch]) -> losses [batch]``."""


class Support(NamedTuple):
    """A support set.

    Attributes:
        inputs: ``[n, ...]``.
        labels: ``[n]``.
        weights: ``[n]`` instance weights ``w``; the inner loss is ``(1/n) sum_i w_i loss_i``, so a
            weight of 0 removes an instance and leaves ``n`` as it is.
    """

    inputs: Tensor
    labels: Tensor
    weights: Tensor


def weighted_loss(
    forward: Forward, loss: InstanceLoss, support: Support
) -> Callable[[Params], Tensor]:
    """The inner loss as a function of the network's parameters."""

    def inner(theta: Params) -> Tensor:
        return (support.weights * loss(forward(theta, support.inputs), support.labels)).mean()

    return inner


class Learner(ABC):
    """Takes meta-parameters and a support set to the network's parameters for that task."""

    @abstractmethod
    def adapt(
        self, forward: Forward, loss: InstanceLoss, params: Params, support: Support
    ) -> Params:
        """Returns the adapted parameters ``theta(lambda; S, w)``, all of the network's.

        Differentiable in everything but the labels.

        Args:
            forward: The model as a function of its parameters.
            loss: Loss of each instance.
            params: Meta-parameters ``lambda``, named as ``meta_parameters`` has them.
            support: The support set ``S`` and its weights ``w``.
        """

    def meta_parameters(self, initial: Params) -> Params:
        """The initial meta-parameters ``lambda``, from the network's initial parameters."""
        return initial

    @property
    def own(self) -> tuple[str, ...]:
        """Meta-parameters that are no weights of the network and that a checkpoint may lack."""
        return ()
