"""Which Fisher matrix: the gradients on a network's outputs that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.func import grad, vmap

from metaaudit.curvature.network import Terms
from metaaudit.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(logits [n, classes], labels [n]) ->`` the mean loss of the batch."""

Fisher = Literal["true", "empirical"]


def output_gradients(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """``[n, classes]``: the gradient of each sample's own loss on its logits.

    In float64: a confident prediction minus its label cancels in single precision.
    """
    gradients: Tensor = len(logits) * grad(loss)(logits.double(), labels)
    return gradients.to(logits)


def fisher_terms(loss: Loss, fisher: Fisher) -> Terms:
    """The terms of the Fisher matrix of ``loss``.

    ``empirical`` has one term, the gradient at the given label. ``true`` is the exact expectation
    over the classes that the network predicts, one term a class: ``sqrt(p_c)`` times the gradient
    at label ``c``. For cross-entropy it is the Gauss-Newton matrix (Martens, 2020).

    Raises:
        ConfigError: ``fisher`` is neither.
    """

    def empirical(logits: Tensor, labels: Tensor) -> Tensor:
        return output_gradients(loss, logits, labels)[None]

    def true(logits: Tensor, labels: Tensor) -> Tensor:
        n, classes = logits.shape
        each = torch.arange(classes, device=logits.device)[:, None].expand(classes, n)
        at = vmap(lambda labels: output_gradients(loss, logits, labels))(each)
        weighted: Tensor = at * logits.softmax(-1).sqrt().T[..., None]
        return weighted

    known: dict[str, Terms] = {"true": true, "empirical": empirical}
    if fisher not in known:
        raise ConfigError("fisher", f"is {fisher!r}", f"one of {', '.join(known)}")
    return known[fisher]


def check_mean(loss: Loss, logits: Tensor, labels: Tensor) -> None:
    """Refuses a loss that is not the mean over the batch.

    Raises:
        ConfigError: It is not a scalar, or changes when the batch is given twice.
    """
    once = loss(logits, labels)
    twice = loss(torch.cat([logits, logits]), torch.cat([labels, labels]))
    # What is not finite is another error, which names the layer.
    if once.ndim or not torch.allclose(once, twice, rtol=1e-3, atol=0.0, equal_nan=True):
        raise ConfigError(
            "loss",
            "is not the mean over the batch",
            "a scalar with mean reduction",
            "use reduction='mean'",
        )
