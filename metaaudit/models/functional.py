"""A module used as a pure function of its parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaaudit.models.normalisation import ElementaryNorm, with_elementary_norms

Params = dict[str, Tensor]
"""Parameters by name."""


class Model:
    """A network whose parameters are an argument.

    Batch normalisation uses the statistics of the batch at hand, or running ones that never change,
    and dropout is off, so that outputs are a function of parameters and inputs and nothing else.

    Args:
        module: The module; its own parameters are only the initial ones.
        source: SHA-256 of the source code that defines it, as part of cache keys.
        running: Whether batch normalisation uses running statistics.
    """

    def __init__(self, module: nn.Module, source: str, *, running: bool = False) -> None:
        self.module = with_elementary_norms(module, running=running).eval()
        self.source = source
        # torch ties names itself, but leaves a shared module with the tensors of the last call.
        first = {id(p): name for name, p in self.module.named_parameters()}
        self._places = {
            f"{path}.{name}".lstrip("."): first[id(p)]
            for path, part in self.module.named_modules()
            for name, p in part.named_parameters(recurse=False, remove_duplicate=False)
        }

    def __call__(self, params: Params, inputs: Tensor) -> Tensor:
        """Outputs ``[batch, ways]`` at ``params`` for ``inputs [batch, ...]``."""
        placed = {place: params[name] for place, name in self._places.items()}
        outputs: Tensor = functional_call(self.module, placed, (inputs,), tie_weights=False)
        return outputs

    def initial(self) -> Params:
        """A detached copy of the module's own parameters, each held once."""
        return {name: p.detach().clone() for name, p in self.module.named_parameters()}

    @property
    def coupled(self) -> bool:
        """Whether the instances of a batch act on each other, through a normalisation."""
        return any(norm.coupled for _, norm in self._norms())

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the running statistics that a checkpoint has to hold."""
        return tuple(
            f"{path}.{part}".lstrip(".")
            for path, norm in self._norms()
            if norm.running
            for part in ("running_mean", "running_var")
        )

    def _norms(self) -> list[tuple[str, ElementaryNorm]]:
        parts = self.module.named_modules()
        return [(path, part) for path, part in parts if isinstance(part, ElementaryNorm)]

    def constants(self) -> Params:
        """Tensors that the outputs depend on and that are no parameters."""
        return dict(self.module.named_buffers())

    def to(self, device: torch.device, dtype: torch.dtype) -> Model:
        """Moves the module, buffers included, and returns it."""
        self.module.to(device=device, dtype=dtype)
        return self
