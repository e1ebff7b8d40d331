"""The formulas of EK-FAC against loops and Kronecker products written out."""

import pytest
import torch

from metaaudit.curvature import kronecker
from metaaudit.errors import IncompleteError
from tests.curvature.dense import assert_close, outer_sum
from tests.curvature.networks import gaussian

# leading, terms, n, groups, positions, outputs, inputs: every order of the products is taken.
SIZES = {
    "one position": ((), 3, 5, 1, 1, 4, 6),
    "one position, groups": ((), 2, 5, 3, 1, 3, 4),
    "one position, tasks": ((2,), 2, 3, 2, 1, 3, 4),
    "few positions": ((), 2, 4, 1, 3, 4, 5),
    "many positions": ((), 1, 4, 1, 9, 2, 5),
    "as many positions as rows": ((), 2, 3, 2, 6, 3, 4),
    "one output": ((), 1, 4, 3, 2, 1, 5),
    "few positions, tasks": ((3,), 2, 4, 2, 3, 4, 5),
    "many positions, tasks": ((3,), 1, 2, 2, 7, 2, 3),
    "one sample": ((), 2, 1, 1, 4, 3, 3),
}


def problem(name, seed=0):
    """``a``, ``g`` and orthonormal bases."""
    leading, terms, n, groups, positions, outputs, inputs = SIZES[name]
    a = gaussian(*leading, n, groups, positions, inputs, seed=seed)
    g = gaussian(*leading, terms, n, groups, positions, outputs, seed=seed + 1)
    basis_in = torch.linalg.qr(gaussian(*leading, groups, inputs, inputs, seed=seed + 2)).Q
    basis_out = torch.linalg.qr(gaussian(*leading, groups, outputs, outputs, seed=seed + 3)).Q
    return a, g, basis_in, basis_out


def by_task(name):
    """The problems of all tasks; a single one where there is no dimension of tasks."""
    parts = problem(name)
    return zip(*parts, strict=True) if SIZES[name][0] else [parts]


def stacked(name, values):
    return torch.stack(values) if SIZES[name][0] else values[0]


def looped_rotations(a, g, basis_in, basis_out):
    """``[n, groups, terms, outputs, inputs]`` through ``torch.kron`` and one matrix at a time."""
    terms, n, groups = g.shape[:3]
    found = torch.zeros(n, groups, terms, g.shape[-1], a.shape[-1], dtype=a.dtype)
    for t in range(terms):
        for i in range(n):
            for k in range(groups):
                gradient = sum(torch.outer(g[t, i, k, p], a[i, k, p]) for p in range(a.shape[2]))
                basis = torch.kron(basis_out[k], basis_in[k])
                found[i, k, t] = (basis.T @ gradient.flatten()).reshape(gradient.shape)
    return found


@pytest.mark.parametrize("name", SIZES)
def test_covariances_are_sums_of_outer_products(name):
    a, g, _, _ = problem(name)
    expected_in = stacked(name, [outer_sum(a) for a, *_ in by_task(name)])
    expected_out = stacked(name, [outer_sum(g) for _, g, *_ in by_task(name)])
    assert_close(kronecker.input_covariance(a), expected_in)
    assert_close(kronecker.output_covariance(g), expected_out)


@pytest.mark.parametrize("name", SIZES)
def test_rotated_gradients_are_products_with_the_kronecker_basis(name):
    expected = stacked(name, [looped_rotations(*parts) for parts in by_task(name)])
    assert_close(kronecker.rotated_gradients(*problem(name)), expected)


@pytest.mark.parametrize("name", SIZES)
def test_squares_are_of_the_sum_over_positions(name):
    expected = stacked(
        name, [looped_rotations(*parts).square().sum((0, 2)) for parts in by_task(name)]
    )
    assert_close(kronecker.squared_gradients(*problem(name)), expected)


def test_squares_by_position_would_be_others():
    a, g, basis_in, basis_out = problem("few positions")
    found = kronecker.squared_gradients(a, g, basis_in, basis_out)
    by_position = sum(
        kronecker.squared_gradients(a[:, :, p : p + 1], g[:, :, :, p : p + 1], basis_in, basis_out)
        for p in range(a.shape[2])
    )
    assert not torch.allclose(found, by_position, rtol=0.1)


@pytest.mark.parametrize("name", SIZES)
def test_weighted_squares_are_sums_of_every_sample(name):
    a, g, basis_in, basis_out = problem(name)
    weights = gaussian(*basis_in.shape[:-2], g.shape[-1], a.shape[-1], seed=9)
    each = weights if SIZES[name][0] else [weights]
    found = kronecker.weighted_squares(a, g, basis_in, basis_out, weights)
    expected = [
        torch.stack([(own[:, None] * m.square()).sum() for m in looped_rotations(*parts)])
        for parts, own in zip(by_task(name), each, strict=True)
    ]
    assert_close(found, stacked(name, expected))


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)], ids=str)
def test_rotation_is_a_product_with_the_kronecker_basis(leading):
    _, _, basis_in, basis_out = problem("one position, groups")
    matrix = gaussian(*leading, 3, 3, 4, seed=7)
    found = kronecker.rotated(matrix, basis_in, basis_out)
    for k in range(3):
        flat = matrix[..., k, :, :].flatten(-2)
        expected = flat @ torch.kron(basis_out[k], basis_in[k])
        assert_close(found[..., k, :, :].flatten(-2), expected)
    assert_close(kronecker.rotated_back(found, basis_in, basis_out), matrix)


@pytest.mark.parametrize("shape", [(6, 6), (3, 4, 4), (2, 3, 5, 5)], ids=str)
@pytest.mark.parametrize("rank", [2, 6])
def test_eigenbasis_is_orthonormal_and_diagonalises(shape, rank):
    rows = gaussian(*shape[:-2], rank, shape[-1])
    covariance = rows.mT @ rows
    basis = kronecker.eigenbasis(covariance, "here")
    assert_close(basis.mT @ basis, torch.eye(shape[-1]).double().expand(shape))
    turned = basis.mT @ covariance @ basis
    assert_close(turned, torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1)))
    assert_close(basis @ turned @ basis.mT, covariance)


def test_eigenbasis_is_taken_in_double_precision():
    rows = gaussian(9, 5).float()
    covariance = rows.T @ rows
    basis = kronecker.eigenbasis(covariance, "here")
    assert basis.dtype == torch.float64
    assert_close(basis, torch.linalg.eigh(covariance.double()).eigenvectors)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_covariance_that_is_not_finite_is_named(value):
    covariance = torch.eye(3).expand(2, 3, 3).clone()
    covariance[1, 0, 2] = value
    with pytest.raises(IncompleteError, match=r"^EK-FAC, layer x: has a covariance that is not f"):
        kronecker.eigenbasis(covariance, "EK-FAC, layer x")
