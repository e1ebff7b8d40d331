"""The factors of EK-FAC, layer by layer: sums, eigenbases, corrected eigenvalues, inverse."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from metaaudit.curvature import kronecker
from metaaudit.curvature.layers import Layer
from metaaudit.curvature.network import Network, Record
from metaaudit.errors import ConfigError
from metaaudit.models import Layout

HEURISTIC = 0.1

Damping = Literal["heuristic"] | float
"""What is added to the eigenvalues: a number, or ``heuristic``, a tenth of each layer's mean
corrected eigenvalue (Grosse et al., 2023)."""


@dataclass
class Covariances:
    """Sums over samples, so that those of shards add up to those of the whole.

    Attributes:
        entering: By layer, sum of ``a a^T``: ``[*, groups, inputs, inputs]``, float64.
        leaving: By layer, sum of ``g g^T``: ``[*, groups, outputs, outputs]``, float64.
        count: Number of samples.
    """

    entering: dict[str, Tensor]
    leaving: dict[str, Tensor]
    count: int

    @classmethod
    def of(cls, record: Record) -> Covariances:
        """Those of one pass."""
        entering = {
            path: kronecker.input_covariance(a).double() for path, a in record.activations.items()
        }
        leaving = {
            path: kronecker.output_covariance(g).double() for path, g in record.gradients.items()
        }
        return cls(entering, leaving, _count(record))

    def __add__(self, other: Covariances) -> Covariances:
        """The sums over both shards."""
        return Covariances(
            {path: own + other.entering[path] for path, own in self.entering.items()},
            {path: own + other.leaving[path] for path, own in self.leaving.items()},
            self.count + other.count,
        )

    @staticmethod
    def total(parts: Iterable[Covariances]) -> Covariances:
        """The sums over all shards, of which there is at least one."""
        return reduce(operator.add, parts)

    def over_tasks(self) -> Covariances:
        """The sums over a leading dimension of tasks."""
        entering = {path: matrix.sum(0) for path, matrix in self.entering.items()}
        leaving = {path: matrix.sum(0) for path, matrix in self.leaving.items()}
        n_tasks = len(next(iter(self.entering.values())))
        return Covariances(entering, leaving, self.count * n_tasks)


@dataclass(frozen=True)
class Bases:
    """The Kronecker eigenbasis of every layer.

    Attributes:
        entering: By layer, orthonormal columns ``[*, groups, inputs, inputs]``.
        leaving: By layer, ``[*, groups, outputs, outputs]``.
    """

    entering: dict[str, Tensor]
    leaving: dict[str, Tensor]

    @classmethod
    def of(cls, network: Network, sums: Covariances, like: Tensor) -> Bases:
        """Eigenvectors of the sums, taken in float64 and kept in the precision of ``like``.

        Raises:
            IncompleteError: A covariance is not finite; the layer is named.
        """

        def basis(path: str, layer: Layer, covariance: Tensor) -> Tensor:
            found = kronecker.eigenbasis(covariance, f"EK-FAC, layer {path}")
            if layer.diagonal:
                found = torch.eye(found.shape[-1], dtype=torch.float64).expand_as(found)
            # As they are read back from a file: products then agree to the last bit.
            return found.to(like).contiguous()

        layers = network.layers.items()
        alone = {name: like.new_ones(one.groups, 1, 1) for name, one in network.alone.items()}
        entering = {path: basis(path, layer, sums.entering[path]) for path, layer in layers}
        leaving = {path: basis(path, layer, sums.leaving[path]) for path, layer in layers}
        return cls(entering | alone, leaving | alone)

    @classmethod
    def of_arrays(cls, network: Network, arrays: Mapping[str, Tensor]) -> Bases:
        """Those that ``arrays`` named."""
        return cls(
            {path: arrays[f"{path}:entering"] for path in network.blocks},
            {path: arrays[f"{path}:leaving"] for path in network.blocks},
        )

    def arrays(self) -> dict[str, Tensor]:
        """All matrices by layer and side, to be stored."""
        entering = {f"{path}:entering": basis for path, basis in self.entering.items()}
        return entering | {f"{path}:leaving": basis for path, basis in self.leaving.items()}

    def squares(self, record: Record) -> dict[str, Tensor]:
        """By layer, the sum over samples of squared rotated gradients, float64."""
        return {
            path: kronecker.squared_gradients(
                a, record.gradients[path], self.entering[path], self.leaving[path]
            ).double()
            for path, a in record.activations.items()
        }

    def rotate(self, network: Network, layout: Layout, vectors: Tensor) -> dict[str, Tensor]:
        """By layer, ``[*, groups, outputs, inputs]``: flat ``vectors [*, size]`` in the basis."""
        params = layout.split(vectors)
        return {
            path: kronecker.rotated(
                layer.matrix(params).to(self.entering[path]),
                self.entering[path],
                self.leaving[path],
            )
            for path, layer in network.blocks.items()
        }

    def rotate_back(
        self, network: Network, layout: Layout, rotated: Mapping[str, Tensor]
    ) -> Tensor:
        """The inverse of ``rotate``."""
        params = {}
        for path, layer in network.blocks.items():
            matrix = kronecker.rotated_back(rotated[path], self.entering[path], self.leaving[path])
            params.update(layer.parameters(matrix))
        return layout.flatten(params)


@dataclass(frozen=True)
class Factors:
    """A block-diagonal curvature matrix, one block a layer, by its eigendecomposition.

    Attributes:
        network: The layers.
        bases: Their eigenbases.
        eigenvalues: By layer, ``[*, groups, outputs, inputs]``.
    """

    network: Network
    bases: Bases
    eigenvalues: dict[str, Tensor]

    @property
    def layout(self) -> Layout:
        """The order of the parameters in a flat vector."""
        return self.network.layout

    def damped(self, damping: Damping) -> dict[str, Tensor]:
        """By layer, ``eigenvalue + damping``."""
        if damping == "heuristic":
            return {
                path: values + HEURISTIC * values.mean((-3, -2, -1), keepdim=True)
                for path, values in self.eigenvalues.items()
            }
        return {path: values + damping for path, values in self.eigenvalues.items()}

    def inverse_eigenvalues(self, damping: Damping) -> dict[str, Tensor]:
        """By layer, ``1 / (eigenvalue + damping)``; 0 for a layer without any gradient.

        Raises:
            ConfigError: The damping is negative, or leaves a singular matrix.
        """
        if damping != "heuristic" and not (isinstance(damping, int | float) and damping >= 0):
            raise ConfigError("damping", f"is {damping!r}", "a number from 0 on or 'heuristic'")
        inverse = {}
        for path, shifted in self.damped(damping).items():
            positive = shifted > 0
            if damping != "heuristic" and not bool((shifted > self._rounding(path)).all()):
                raise ConfigError(
                    "damping",
                    f"{damping} leaves layer {path} singular",
                    "a positive number or 'heuristic'",
                )
            inverse[path] = torch.where(positive, 1 / shifted.where(positive, 1.0), 0.0)
        return inverse

    def _rounding(self, path: str) -> Tensor:
        """How large an eigenvalue that is zero can come out: squares of rotated gradients."""
        values = self.eigenvalues[path]
        epsilon = torch.finfo(self.bases.entering[path].dtype).eps
        size = math.prod(values.shape[-3:])
        return epsilon**2 * size * values.amax((-3, -2, -1), keepdim=True)

    def quadratic(self, weights: Mapping[str, Tensor], record: Record) -> Tensor:
        """``g^T Q diag(weights) Q^T g`` of every sample's gradient, summed over terms: ``[*, n]``.

        Args:
            weights: As in ``apply``.
            record: Activations and gradients.
        """
        parts = [
            kronecker.weighted_squares(
                a,
                record.gradients[path],
                self.bases.entering[path],
                self.bases.leaving[path],
                weights[path].to(a),
            )
            for path, a in record.activations.items()
        ]
        return torch.stack(parts).sum(0)

    def apply(self, weights: Mapping[str, Tensor], vectors: Tensor) -> Tensor:
        """``Q diag(weights) Q^T v`` of the rows of ``vectors [*, size]``, in their precision.

        Args:
            weights: By layer, ``[*, groups, outputs, inputs]``: an inverse's eigenvalues, say.
            vectors: Rows, one a task where the factors have a dimension of tasks.
        """
        rotated = self.bases.rotate(self.network, self.layout, vectors)
        scaled = {path: values * weights[path].to(values) for path, values in rotated.items()}
        return self.bases.rotate_back(self.network, self.layout, scaled).to(vectors)


def corrected(squares: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Corrected eigenvalues: means over ``count`` samples of squared rotated gradients."""
    return {path: total / count for path, total in squares.items()}


def summed(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sums by layer."""
    totals: dict[str, Tensor] = {}
    for part in parts:
        for path, values in part.items():
            totals[path] = totals[path] + values if path in totals else values
    return totals


def _count(record: Record) -> int:
    return next(iter(record.activations.values())).shape[-4]
