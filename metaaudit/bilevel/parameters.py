"""Parameters as one flat vector and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metaaudit.models import Params


@dataclass(frozen=True)
class Layout:
    """Names and shapes of parameters, in the order in which they are laid end to end."""

    shapes: dict[str, torch.Size]

    @classmethod
    def of(cls, params: Params) -> Layout:
        """The layout of ``params``."""
        return cls({name: p.shape for name, p in params.items()})

    @property
    def size(self) -> int:
        """Number of scalars."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def flatten(self, params: Params) -> Tensor:
        """``[*leading, size]`` from parameters that share leading dimensions."""
        return torch.cat(
            [
                params[name].reshape(*params[name].shape[: params[name].ndim - len(shape)], -1)
                for name, shape in self.shapes.items()
            ],
            dim=-1,
        )

    def unflatten(self, vector: Tensor, like: Params) -> Params:
        """Parameters typed as ``like``, leading dimensions as in ``vector [*leading, size]``."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = torch.split(vector, sizes, dim=-1)
        return {
            name: part.reshape(*vector.shape[:-1], *shape).to(like[name])
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
