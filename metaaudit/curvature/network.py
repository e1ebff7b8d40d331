"""A network as its layers, and one pass that records what enters and leaves each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metaaudit.curvature.layers import SUPPORTED, Block, Layer, layer_of
from metaaudit.errors import ModelError
from metaaudit.models import Layout, Params, pullback

Terms = Callable[[Tensor, Tensor], Tensor]
"""``(outputs [n, classes], labels [n]) -> [terms, n, classes]``: gradients on the outputs of every
sample, whose outer products add up to the sample's Fisher (or Hessian) on the outputs."""


@dataclass(frozen=True)
class Record:
    """What EK-FAC needs of one pass; a leading dimension of tasks where there are several.

    Attributes:
        activations: By layer, ``[n, groups, positions, inputs]``.
        gradients: By layer, ``[terms, n, groups, positions, outputs]``.
    """

    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return sum(t.nbytes for part in (self.activations, self.gradients) for t in part.values())


@dataclass(frozen=True)
class Network:
    """A module all of whose trained parameters belong to supported layers.

    Attributes:
        module: The module, used as a function of its parameters; it is never changed.
        layers: Its layers by name.
        shapes: Shape of each layer's output, without the batch.
        alone: Further tensors that are no parameters of the module, by name.
    """

    module: nn.Module
    layers: dict[str, Layer]
    shapes: dict[str, torch.Size]
    alone: dict[str, Block] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module, inputs: Tensor) -> Network:
        """Finds the layers.

        Args:
            module: The module, in the mode in which it is to be used.
            inputs: ``[n, ...]``, any batch that it takes.

        Raises:
            ModelError: There is no parameter to train, one belongs to no supported layer or to two,
                or a layer is called other than once or gives outputs without the samples first.
        """
        found = {path: layer_of(path, part) for path, part in module.named_modules()}
        layers = {path: layer for path, layer in found.items() if layer is not None}
        if not layers:
            raise ModelError("model", "has no parameters to train", SUPPORTED)
        _check_unshared(module)
        shapes: dict[str, torch.Size] = {}
        calls = dict.fromkeys(layers, 0)

        def note(path: str, _: Tensor, output: Tensor) -> None:
            calls[path] += 1
            shapes[path] = output.shape[1:]
            if len(output) != len(inputs):
                raise ModelError(
                    f"model, layer {path}",
                    f"gives {list(output.shape)} for {len(inputs)} inputs",
                    "the inputs as its first dimension, for EK-FAC",
                    "use another curvature",
                )

        network = cls(module, layers, shapes)
        with torch.no_grad(), network._calling(note):
            network(dict(module.named_parameters()), inputs)
        for path, count in calls.items():
            if count != 1:
                raise ModelError(
                    f"model, layer {path}",
                    f"is called {count} times in a forward pass",
                    "once, for EK-FAC",
                    "use another curvature",
                )
        return network

    def over(self, params: Params) -> Network:
        """The same network with those layers alone whose weights are among ``params``.

        What else is there, a learner's own meta-parameters, is kept beside them.
        """
        kept = {path: layer for path, layer in self.layers.items() if layer.weight in params}
        inside = {name for layer in kept.values() for name in (layer.weight, layer.bias)}
        alone = {
            name: Block.alone(name, p.shape) for name, p in params.items() if name not in inside
        }
        return replace(self, layers=kept, alone=alone)

    @property
    def blocks(self) -> dict[str, Block]:
        """All that has a block of its own in the curvature."""
        return {**self.layers, **self.alone}

    @property
    def layout(self) -> Layout:
        """The parameters of all blocks, those of the layers in the order that the module has."""
        names = {name for layer in self.layers.values() for name in (layer.weight, layer.bias)}
        own = {n: p.shape for n, p in self.module.named_parameters() if n in names}
        return Layout({**own, **{name: one.weight_shape for name, one in self.alone.items()}})

    @property
    def parameters(self) -> Params:
        """The trained parameters, as they are in the module."""
        return {name: p.detach() for name, p in self.module.named_parameters() if p.requires_grad}

    def __call__(self, params: Params, inputs: Tensor) -> Tensor:
        """Outputs ``[n, classes]`` at ``params``."""
        # Copies of the buffers, which a batch normalisation would update.
        state = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        outputs: Tensor = functional_call(self.module, {**state, **params}, (inputs,))
        return outputs

    def record(self, params: Params, inputs: Tensor, labels: Tensor, terms: Terms) -> Record:
        """Runs forwards and, once a term, backwards.

        Args:
            params: The parameters.
            inputs: ``[n, ...]``.
            labels: ``[n]``.
            terms: Gives the gradients on the outputs to start from.
        """
        like = next(iter(params.values()))  # the inputs can be integers
        shifts = {path: like.new_zeros(len(inputs), *self.shapes[path]) for path in self.layers}

        # A layer's output gradient is that of a zero added to it: a pure function, so that it can
        # be mapped over tasks and over terms.
        def run(shifts: Params) -> tuple[Tensor, Params]:
            activations: Params = {}

            def keep(path: str, entered: Tensor, output: Tensor) -> Tensor:
                activations[path] = self.layers[path].activations(entered)
                return output + shifts[path]

            with self._calling(keep):
                return self(params, inputs), activations

        (outputs, activations), pull = pullback(run, shifts, has_aux=True)
        weights = terms(outputs, labels)

        def gradients(weight: Tensor) -> Params:
            pulled = pull(weight)
            return {path: layer.gradients(pulled[path]) for path, layer in self.layers.items()}

        return Record(activations, vmap(gradients)(weights))

    @contextmanager
    def _calling(self, told: Callable[[str, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
        """Calls ``told(layer, input, output)`` at each layer; its result replaces the output."""

        def hook(path: str) -> Callable[[nn.Module, Any, Any, Tensor], Tensor | None]:
            def call(_: nn.Module, args: Any, named: Any, output: Tensor) -> Tensor | None:
                return told(path, args[0] if args else next(iter(named.values())), output)

            return call

        handles = [
            self.module.get_submodule(path).register_forward_hook(hook(path), with_kwargs=True)
            for path in self.layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def record_tasks(
    network: Network, theta: Params, inputs: Tensor, labels: Tensor, terms: Terms
) -> Record:
    """``network.record`` of several tasks, each at parameters of its own.

    Args:
        network: The layers.
        theta: Parameters with a leading dimension of tasks.
        inputs: ``[tasks, n, ...]``.
        labels: ``[tasks, n]``.
        terms: As in ``Network.record``.
    """

    def one(theta: Params, inputs: Tensor, labels: Tensor) -> tuple[Params, Params]:
        record = network.record(theta, inputs, labels, terms)
        return record.activations, record.gradients

    return Record(*vmap(one)(theta, inputs, labels))


def _check_unshared(module: nn.Module) -> None:
    first: dict[int, str] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        if id(p) in first:
            raise ModelError(
                f"model, parameter {name}",
                f"is the same tensor as {first[id(p)]}",
                f"{SUPPORTED} with parameters of their own, for EK-FAC",
                "use another curvature",
            )
        first[id(p)] = name
