"""A network cut before the linear layer that ends it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from metaaudit.errors import ModelError
from metaaudit.models.functional import Model, Params


@dataclass(frozen=True)
class Head:
    """The last layer, and the network before it.

    Attributes:
        name: The layer's name.
        features: The network without it: ``(params, inputs [batch, ...]) -> [batch, width]``.
        ways: Outputs of the layer.
    """

    name: str
    features: Model
    ways: int

    @property
    def weight(self) -> str:
        """Name of the layer's weight ``[ways, width]``."""
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        """Name of the layer's bias ``[ways]``."""
        return f"{self.name}.bias"

    def without(self, params: Params) -> Params:
        """All parameters but those of the layer."""
        return {name: p for name, p in params.items() if name not in (self.weight, self.bias)}

    @classmethod
    def of(cls, model: Model, input_shape: tuple[int, ...], name: str | None = None) -> Head:
        """Cuts a model. Parameters and buffers are shared with it, not copied.

        Args:
            model: A model whose last operation is a linear layer with a bias.
            input_shape: Shape of one input.
            name: The layer; the last linear one if absent.

        Raises:
            ModelError: There is no such layer, or it is not the last operation.
        """
        name = _last_linear(model) if name is None else name
        layer = dict(model.module.named_modules()).get(name)
        if not isinstance(layer, nn.Linear) or layer.bias is None:
            kind = "no layer of the model" if layer is None else f"a {type(layer).__name__}"
            unbiased = " without a bias" if isinstance(layer, nn.Linear) else ""
            raise ModelError(
                "learner.head", f"{name!r} is {kind}{unbiased}", "a torch.nn.Linear with a bias"
            )
        if not name:
            raise ModelError("learner.head", "is the whole model", "layers before it")
        own = {id(layer.weight), id(layer.bias)}
        tied = [n for n, p in model.module.state_dict(keep_vars=True).items() if id(p) in own]
        if len(tied) > len(own):
            raise ModelError(
                "learner.head",
                f"{name!r} shares its parameters ({', '.join(tied)})",
                "a layer with parameters of its own",
            )
        shared = [*model.module.parameters(), *model.module.buffers()]
        body = copy.deepcopy(model.module, {id(tensor): tensor for tensor in shared})
        body.set_submodule(name, nn.Identity())
        head = cls(name, Model(body, model.source), layer.out_features)
        head._check(model, input_shape)
        return head

    def _check(self, model: Model, input_shape: tuple[int, ...]) -> None:
        params = model.initial()
        like = next(iter(params.values()))
        count = 2 * math.prod(input_shape)
        inputs = torch.linspace(0, 1, count).to(like).reshape(2, *input_shape)
        with torch.no_grad():
            expected = model(params, inputs)
            try:
                features = self.features(params, inputs)
                outputs = functional.linear(features, params[self.weight], params[self.bias])
                same = torch.allclose(outputs, expected, rtol=1e-3, atol=1e-4)
            except RuntimeError:  # what follows the layer does not take its inputs
                same = False
        if not same:
            raise ModelError(
                "learner.head",
                f"{self.name!r} is not the last operation of the model",
                "a network that ends with a linear layer",
                "name the layer in learner.head",
            )


def _last_linear(model: Model) -> str:
    names: list[str] = [
        name for name, m in model.module.named_modules() if isinstance(m, nn.Linear)
    ]
    if not names:
        raise ModelError("model", "has no linear layer", "a network that ends with one")
    return names[-1]
