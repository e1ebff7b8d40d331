"""Parameters as one flat vector and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metaaudit.models.functional import Params


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

    def split(self, vector: Tensor) -> Params:
        """Parameters from ``vector [*leading, size]``, in its precision."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = torch.split(vector, sizes, dim=-1)
        return {
            name: part.reshape((*vector.shape[:-1], *shape))
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def unflatten(self, vector: Tensor, like: Params) -> Params:
        """The same, typed as ``like``."""
        return {name: part.to(like[name]) for name, part in self.split(vector).items()}
