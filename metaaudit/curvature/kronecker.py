"""The formulas of EK-FAC, free of networks, files and devices.

Throughout, ``a [*, n, groups, positions, inputs]`` is what enters a layer and ``g [*, terms, n,
groups, positions, outputs]`` are gradients of what leaves it, one for each term of the Fisher
matrix ``F = E[sum_terms vec(G) vec(G)^T]``, ``G = sum_positions g a^T``. ``*`` may be a dimension
of tasks. KFAC (Martens and Grosse, 2015; Grosse and Martens, 2016) takes ``F`` as a Kronecker
product; EK-FAC (George et al., 2018) keeps its eigenbasis and fits the eigenvalues.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metaaudit.errors import IncompleteError


def input_covariance(a: Tensor) -> Tensor:
    """``[*, groups, inputs, inputs]``: sum of ``a a^T`` over samples and positions."""
    rows = _input_rows(a)
    return rows.mT @ rows


def output_covariance(g: Tensor) -> Tensor:
    """``[*, groups, outputs, outputs]``: sum of ``g g^T`` over terms, samples and positions."""
    rows = _output_rows(g)
    return rows.mT @ rows


def eigenbasis(covariance: Tensor, where: str) -> Tensor:
    """Orthonormal eigenvectors, in columns, of symmetric matrices ``[*, size, size]``; float64.

    Args:
        covariance: Any scale; only its eigenvectors matter.
        where: What an error is to name.

    Raises:
        IncompleteError: The matrix is not finite, or its eigenvectors are not.
    """
    matrix = covariance.double()
    basis = torch.linalg.eigh(matrix).eigenvectors if bool(matrix.isfinite().all()) else matrix
    if not bool(basis.isfinite().all()):
        raise IncompleteError(
            where,
            "has a covariance that is not finite",
            "finite activations and gradients",
            "check the inputs, or use float64",
        )
    return basis


def rotated(matrix: Tensor, basis_in: Tensor, basis_out: Tensor) -> Tensor:
    """``Q_out^T M Q_in`` of matrices ``[*, groups, outputs, inputs]``."""
    return basis_out.mT @ matrix @ basis_in


def rotated_back(matrix: Tensor, basis_in: Tensor, basis_out: Tensor) -> Tensor:
    """``Q_out M Q_in^T``: the inverse of ``rotated``."""
    return basis_out @ matrix @ basis_in.mT


def rotated_gradients(a: Tensor, g: Tensor, basis_in: Tensor, basis_out: Tensor) -> Tensor:
    """``Q_out^T G Q_in`` of every sample and term: ``[*, n, groups, terms, outputs, inputs]``.

    Positions are summed first: the gradient of a sample is one matrix.
    """
    terms, n, positions, outputs = *g.shape[-5:-3], *g.shape[-2:]
    rows = _output_rows(g) @ basis_out
    turned = rows.reshape(*rows.shape[:-2], terms, n, positions, outputs)
    # The terms are rows of one product, so that the activations are not repeated for each.
    stacked = turned.movedim((-3, -5, -4, -1, -2), (-5, -4, -3, -2, -1)).flatten(-3, -2)
    if positions > terms * outputs:  # fewer rows to rotate after the sum over positions
        matrices = _rotate_rows(stacked @ a, basis_in)
    else:
        matrices = stacked @ _rotate_rows(a, basis_in)
    return matrices.reshape(*matrices.shape[:-2], terms, outputs, -1)


def squared_gradients(a: Tensor, g: Tensor, basis_in: Tensor, basis_out: Tensor) -> Tensor:
    """Sum over samples and terms of the squared ``rotated_gradients``.

    Returns:
        ``[*, groups, outputs, inputs]``; over the number of samples this is the corrected
        eigenvalue, the mean of the squared rotated gradient.
    """
    if a.shape[-2] > 1:
        return rotated_gradients(a, g, basis_in, basis_out).square().sum(-3).sum(-4)
    by_output, by_input = _single_position(a, g, basis_in, basis_out)
    return by_output.mT @ by_input


def weighted_squares(
    a: Tensor, g: Tensor, basis_in: Tensor, basis_out: Tensor, weights: Tensor
) -> Tensor:
    """``sum_terms sum_ij W_ij (Q_out^T G Q_in)_ij^2`` of every sample: ``[*, n]``.

    Args:
        a: See above.
        g: See above.
        basis_in: ``[*, groups, inputs, inputs]``.
        basis_out: ``[*, groups, outputs, outputs]``.
        weights: ``W [*, groups, outputs, inputs]``.
    """
    if a.shape[-2] > 1:
        squares = rotated_gradients(a, g, basis_in, basis_out).square().sum(-3)
        return (squares * weights[..., None, :, :, :]).sum((-3, -2, -1))
    by_output, by_input = _single_position(a, g, basis_in, basis_out)
    return (by_output @ weights * by_input).sum((-3, -1))


def _single_position(
    a: Tensor, g: Tensor, basis_in: Tensor, basis_out: Tensor
) -> tuple[Tensor, Tensor]:
    """Squares of a rank-one gradient's two rotated factors: ``[*, groups, n, width]`` each."""
    terms, n = g.shape[-5], g.shape[-4]
    squares = (_output_rows(g) @ basis_out).square()
    by_output = squares.reshape(*squares.shape[:-2], terms, n, -1).sum(-3)
    return by_output, (_input_rows(a) @ basis_in).square()


def _input_rows(a: Tensor) -> Tensor:
    """``[*, groups, n * positions, inputs]``."""
    return a.transpose(-4, -3).flatten(-3, -2)


def _output_rows(g: Tensor) -> Tensor:
    """``[*, groups, terms * n * positions, outputs]``."""
    return g.movedim(-3, -5).flatten(-4, -2)


def _rotate_rows(a: Tensor, basis: Tensor) -> Tensor:
    """``a Q`` for ``a [*, n, groups, rows, width]``, as one product a group."""
    rows = _input_rows(a) @ basis
    n, each = a.shape[-4], a.shape[-2]
    return rows.reshape(*rows.shape[:-2], n, each, -1).transpose(-4, -3)
