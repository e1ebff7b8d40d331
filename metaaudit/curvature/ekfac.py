"""EK-FAC of a single-level model: a public API of its own, and the reference of the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaaudit.cache.entry import Stored, read_entry, write_entry
from metaaudit.cache.seal import DamagedError
from metaaudit.curvature import kronecker
from metaaudit.curvature.factors import Bases, Covariances, Damping, Factors, corrected, summed
from metaaudit.curvature.fingerprint import weights_hash
from metaaudit.curvature.fisher import Fisher, Loss, check_mean, fisher_terms
from metaaudit.curvature.network import Network, Record
from metaaudit.errors import ConfigError, RunError
from metaaudit.runs.atomic import replacing

Batches = Iterable[tuple[Tensor, Tensor]]
"""Pairs of inputs ``[n, ...]`` and labels ``[n]``; a list or a ``DataLoader``, not an iterator."""


KEPT_BYTES = 1 << 30
"""Records of the first pass are kept for the second up to this size."""


@dataclass(frozen=True)
class EKFAC:
    """Eigenvalue-corrected Kronecker-factored curvature of a classifier (George et al., 2018).

    ``F`` is block-diagonal, one block a layer: ``Q diag(lambda) Q^T`` with the eigenbasis ``Q`` of
    the Kronecker factors and the mean squared gradient ``lambda`` along each eigenvector. Linear
    and Conv2d layers are covered, and normalisation layers by diagonal blocks. The model is used in
    the mode that it is in, and is not changed.

    Attributes:
        factors: Eigenbases and corrected eigenvalues of every layer.
        loss: ``loss(logits, labels)``, the mean over the batch.
        fisher: ``true`` or ``empirical``.
    """

    factors: Factors
    loss: Loss
    fisher: Fisher

    @classmethod
    def fit(
        cls, model: nn.Module, loss: Loss, batches: Batches, *, fisher: Fisher = "true"
    ) -> EKFAC:
        """Fits the factors in two passes over the data: covariances, then eigenvalues.

        Args:
            model: ``[n, ...] -> [n, classes]``, made of Linear, Conv2d and normalisation layers
                and functions without parameters.
            loss: ``(logits [n, classes], labels [n])`` to the mean loss of the batch.
            batches: The data to average over. The result does not depend on how it is cut.
            fisher: ``true`` takes the exact expectation over the classes that the model predicts,
                at the cost of one backward pass a class; ``empirical`` the given labels.

        Raises:
            ModelError: A parameter belongs to no supported layer.
            ConfigError: There is no data, it can be read once only, or the loss is no mean.
            IncompleteError: A covariance is not finite; the layer is named.
        """
        inputs, labels = _first(batches)
        network = Network.of(model, inputs)
        params = network.parameters
        with torch.no_grad():
            check_mean(loss, network(params, inputs), labels)
        terms = fisher_terms(loss, fisher)

        def records() -> Iterator[Record]:
            return (network.record(params, x, y, terms) for x, y in batches)

        kept: list[Record] = []
        sums = Covariances.total(map(Covariances.of, _keeping(records(), kept)))
        bases = Bases.of(network, sums, next(iter(params.values())))
        squares = summed(map(bases.squares, kept or records()))
        return cls(Factors(network, bases, corrected(squares, sums.count)), loss, fisher)

    def inverse_matvec(self, vectors: Tensor, damping: Damping = "heuristic") -> Tensor:
        """``(F + damping)^-1 v``.

        Args:
            vectors: ``[size]`` or ``[k, size]``, parameters laid end to end in the order of
                ``model.named_parameters()``.
            damping: Added to every eigenvalue: a number, or ``heuristic``, a tenth of each layer's
                mean corrected eigenvalue.

        Returns:
            As ``vectors``.

        Raises:
            ConfigError: The damping leaves a singular matrix, or a vector has another size.
        """
        size = self.factors.layout.size
        if vectors.shape[-1] != size:
            raise ConfigError("vectors", f"have size {vectors.shape[-1]}", f"{size}")
        return self.factors.apply(self.factors.inverse_eigenvalues(damping), vectors)

    def scores(
        self, train_batches: Batches, test_batches: Batches, damping: Damping = "heuristic"
    ) -> Tensor:
        """Influence of training on test instances, ``g_test^T (F + damping)^-1 g_train``.

        Positive = training on the instance *lowers* the test loss. The reports of ``metaaudit
        score`` have the opposite sign, positive = harmful.

        Args:
            train_batches: ``n_train`` instances.
            test_batches: ``n_test`` instances; ``[n_test, size]`` numbers are held in memory.
            damping: As in ``inverse_matvec``.

        Returns:
            ``[n_train, n_test]``, in the precision of the model.
        """
        inverse = self.factors.inverse_eigenvalues(damping)
        tested: dict[str, list[Tensor]] = {path: [] for path in inverse}
        for record in self._gradients(test_batches):
            for path, gradients in self._rotated(record):
                weights = inverse[path].to(gradients).flatten()
                tested[path].append(gradients * weights)
        columns = {path: _joined(parts).T for path, parts in tested.items()}
        rows = []
        for record in self._gradients(train_batches):
            parts = [gradients @ columns[path] for path, gradients in self._rotated(record)]
            rows.append(torch.stack(parts).sum(0))
        return _joined(rows)

    def self_influence(self, train_batches: Batches, damping: Damping = "heuristic") -> Tensor:
        """``g^T (F + damping)^-1 g`` of every instance: ``[n_train]``, never negative.

        Args:
            train_batches: ``n_train`` instances.
            damping: As in ``inverse_matvec``.
        """
        inverse = self.factors.inverse_eigenvalues(damping)
        records = self._gradients(train_batches)
        return _joined([self.factors.quadratic(inverse, record) for record in records])

    def save(self, path: Path | str) -> None:
        """Writes the factors as one HDF5 file, whole or not at all.

        Raises:
            RunError: It cannot be written.
        """
        path = Path(path)
        arrays = self.factors.bases.arrays()
        for layer, values in self.factors.eigenvalues.items():
            arrays[f"{layer}:eigenvalues"] = values
        arrays["fisher"] = torch.tensor(self.fisher == "true")
        stored = {name: values.cpu().numpy() for name, values in arrays.items()}
        with replacing(path) as temporary:
            write_entry(temporary, _state_hash(self.factors.network), Stored(stored, 0))

    @classmethod
    def load(cls, path: Path | str, *, expect: nn.Module, loss: Loss, inputs: Tensor) -> EKFAC:
        """Reads factors that ``save`` wrote.

        Args:
            path: The file.
            expect: The model; its weights, frozen ones and buffers included, must be those that the
                factors were fitted at.
            loss: As in ``fit``.
            inputs: ``[n, ...]``, any batch that the model takes.

        Raises:
            RunError: There is no such file, it is damaged, or it was fitted for other weights.
        """
        path, network = Path(path), Network.of(expect, inputs)
        try:
            arrays = read_entry(path, _state_hash(network)).arrays
        except (DamagedError, FileNotFoundError) as error:
            raise RunError(
                path, f"cannot be used ({error})", "factors of this model and these weights", "fit"
            ) from None
        device = next(iter(network.parameters.values())).device
        tensors = {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}
        values = {layer: tensors[f"{layer}:eigenvalues"] for layer in network.layers}
        factors = Factors(network, Bases.of_arrays(network, tensors), values)
        return cls(factors, loss, "true" if arrays["fisher"] else "empirical")

    def _gradients(self, batches: Batches) -> Iterator[Record]:
        """Activations and the gradients of every instance's own loss."""
        network, params = self.factors.network, self.factors.network.parameters
        terms = fisher_terms(self.loss, "empirical")
        return (network.record(params, x, y, terms) for x, y in batches)

    def _rotated(self, record: Record) -> Iterator[tuple[str, Tensor]]:
        """By layer, the gradients in the eigenbasis, ``[n, groups * outputs * inputs]``."""
        bases = self.factors.bases
        for path, a in record.activations.items():
            rotated = kronecker.rotated_gradients(
                a, record.gradients[path], bases.entering[path], bases.leaving[path]
            )
            yield path, rotated.squeeze(-3).flatten(1)


def _state_hash(network: Network) -> str:
    """Of the trained parameters, and of the frozen ones and buffers, which also count."""
    trained, module = network.parameters, network.module
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    fixed = {f"fixed {name}": value for name, value in state.items() if name not in trained}
    return weights_hash({**trained, **fixed})


def _keeping(records: Iterable[Record], kept: list[Record]) -> Iterator[Record]:
    """Passes the records on and keeps them all in ``kept``, or none if they are too large."""
    size = 0
    for record in records:
        size += record.nbytes
        if size <= KEPT_BYTES:
            kept.append(record)
        else:
            kept.clear()
        yield record


def _empty() -> ConfigError:
    return ConfigError("batches", "is empty", "at least one batch of inputs and labels")


def _joined(parts: list[Tensor]) -> Tensor:
    if not parts:
        raise _empty()
    return torch.cat(parts)


def _first(batches: Batches) -> tuple[Tensor, Tensor]:
    if isinstance(batches, Iterator):
        raise ConfigError(
            "batches", "is an iterator, which can be read once only", "a list or a DataLoader"
        )
    first: Any = next(iter(batches), None)
    if first is None:
        raise _empty()
    return first[0], first[1]
