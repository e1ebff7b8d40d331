"""Layers whose gradients are sums of outer products, and how parameters map to matrices.

The gradient of every supported layer falls into ``groups`` independent matrices ``[outputs,
inputs]``, each the sum over positions of ``g a^T``: ``a`` what enters, with a 1 for the bias, and
``g`` the gradient of what leaves. A linear layer has one group, a convolution one for each of its
groups, and a normalisation, which scales each feature by itself, one a feature.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from metaaudit.errors import ModelError
from metaaudit.models import Params
from metaaudit.models.normalisation import ElementaryNorm

Norms = _BatchNorm | _InstanceNorm | nn.GroupNorm | nn.LayerNorm | ElementaryNorm
SUPPORTED = "Linear, Conv2d and normalisation layers"


@dataclass(frozen=True)
class Block:
    """Parameters that have a block of their own in the curvature.

    Attributes:
        weight: Name of the weight in the network.
        bias: Name of the bias; ``None`` if there is none.
        weight_shape: Shape of the weight.
        groups: Number of independent matrices.
        outputs: Rows of each.
        inputs: Columns of each, one for the bias included.
        diagonal: Whether its eigenbasis is taken to be the parameters themselves.
    """

    weight: str
    bias: str | None
    weight_shape: torch.Size
    groups: int
    outputs: int
    inputs: int
    diagonal: bool = False

    @classmethod
    def alone(cls, name: str, shape: torch.Size) -> Block:
        """That of a tensor of no layer, such as a learning rate: each entry by itself."""
        return cls(name, None, shape, math.prod(shape), 1, 1, diagonal=True)

    def matrix(self, params: Params) -> Tensor:
        """``[*leading, groups, outputs, inputs]`` from parameters with leading dimensions."""
        weight = params[self.weight]
        leading = weight.shape[: weight.ndim - len(self.weight_shape)]
        weight = weight.reshape(*leading, self.groups, self.outputs, -1)
        if self.bias is None:
            return weight
        bias = params[self.bias].reshape(*leading, self.groups, self.outputs, 1)
        return torch.cat([weight, bias], dim=-1)

    def parameters(self, matrix: Tensor) -> Params:
        """The inverse of ``matrix``."""
        leading = matrix.shape[:-3]
        weight = matrix if self.bias is None else matrix[..., :-1]
        result = {self.weight: weight.reshape(*leading, *self.weight_shape)}
        if self.bias is not None:
            shape = self.weight_shape if self.diagonal else (self.groups * self.outputs,)
            result[self.bias] = matrix[..., -1].reshape(*leading, *shape)
        return result

    def _with_one(self, activations: Tensor) -> Tensor:
        if self.bias is None:
            return activations
        return functional.pad(activations, (0, 1), value=1.0)


@dataclass(frozen=True)
class Layer(Block, ABC):
    """One layer.

    Attributes:
        module: The module; for a normalisation one without scale and shift.
    """

    module: nn.Module = field(kw_only=True)

    @abstractmethod
    def activations(self, inputs: Tensor) -> Tensor:
        """``[n, groups, positions, inputs]`` from what the module was called with."""

    @abstractmethod
    def gradients(self, gradients: Tensor) -> Tensor:
        """``[n, groups, positions, outputs]`` from gradients shaped as the module's output."""


class LinearLayer(Layer):
    """``y = W a``; dimensions between the first and the last are positions."""

    def activations(self, inputs: Tensor) -> Tensor:
        """See ``Layer.activations``."""
        return self._with_one(_positions(inputs))

    def gradients(self, gradients: Tensor) -> Tensor:
        """See ``Layer.gradients``."""
        return _positions(gradients)


class ConvLayer(Layer):
    """A convolution is a linear layer on patches, its output places the positions."""

    module: nn.Conv2d

    def activations(self, inputs: Tensor) -> Tensor:
        """See ``Layer.activations``."""
        conv = self.module
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        padded = functional.pad(inputs, conv._reversed_padding_repeated_twice, mode=mode)
        patches = functional.unfold(
            padded, conv.kernel_size, dilation=conv.dilation, stride=conv.stride
        )
        return self._with_one(self._grouped(patches))

    def gradients(self, gradients: Tensor) -> Tensor:
        """See ``Layer.gradients``."""
        return self._grouped(gradients.flatten(2))

    def _grouped(self, channels: Tensor) -> Tensor:
        """``[n, channels, positions] -> [n, groups, positions, channels / groups]``."""
        return channels.reshape(len(channels), self.groups, -1, channels.shape[-1]).mT


class NormLayer(Layer):
    """Scale and shift of every normalised feature."""

    def activations(self, inputs: Tensor) -> Tensor:
        """See ``Layer.activations``."""
        return self._with_one(self._by_feature(self.module(inputs)))

    def gradients(self, gradients: Tensor) -> Tensor:
        """See ``Layer.gradients``."""
        return self._by_feature(gradients)

    def _by_feature(self, values: Tensor) -> Tensor:
        last = isinstance(self.module, nn.LayerNorm) or bool(getattr(self.module, "features", 0))
        if last:  # the features are the last dimensions, of images the first after the batch
            return values.reshape(len(values), -1, self.groups, 1).transpose(1, 2)
        return values.reshape(*values.shape[:2], -1, 1)


def layer_of(path: str, module: nn.Module) -> Layer | None:
    """The layer of a module; ``None`` for one that has no parameters of its own to train.

    Args:
        path: The module's name in the network.
        module: The module.

    Raises:
        ModelError: The module is of no supported kind, or only some of its parameters are trained.
    """
    own = dict(module.named_parameters(recurse=False))
    trained = {name for name, p in own.items() if p.requires_grad}
    if not trained:
        return None
    if trained != set(own):
        frozen = sorted(set(own) - trained)
        raise ModelError(_named(path), f"has {frozen[0]} frozen and the rest not", "all or none")
    weight = f"{path}.weight".lstrip(".")
    bias = f"{path}.bias".lstrip(".") if own.get("bias") is not None else None
    one = int(bias is not None)
    if set(own) <= {"weight", "bias"} and "weight" in own:
        shape = own["weight"].shape
        if isinstance(module, nn.Linear):
            size = (1, module.out_features, module.in_features + one)
            return LinearLayer(weight, bias, shape, *size, module=module)
        if isinstance(module, nn.Conv2d):
            size = (module.groups, shape[0] // module.groups, math.prod(shape[1:]) + one)
            return ConvLayer(weight, bias, shape, *size, module=module)
        if isinstance(module, Norms):
            size = (shape.numel(), 1, 1 + one)
            return NormLayer(weight, bias, shape, *size, diagonal=True, module=_plain(module))
    raise ModelError(
        _named(path),
        f"is a {type(module).__name__} with parameters of its own, which EK-FAC does not cover",
        SUPPORTED,
        "use another curvature, or build it of these",
    )


def _plain(norm: Norms) -> nn.Module:
    """A copy that scales by 1 and shifts by 0; in training mode without running statistics."""
    copied = copy.deepcopy(norm)
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        if getattr(copied, name) is not None:
            nn.init.constant_(getattr(copied, name).requires_grad_(False), value)
    if copied.training and isinstance(copied, _BatchNorm | _InstanceNorm):
        # It would update them in place, which a function that is differentiated must not.
        copied.track_running_stats = False
        copied.running_mean = copied.running_var = None
    return copied


def _named(path: str) -> str:
    return f"model, layer {path}" if path else "model"


def _positions(values: Tensor) -> Tensor:
    """``[n, ..., width] -> [n, 1, positions, width]``."""
    return values.reshape(len(values), 1, -1, values.shape[-1])
