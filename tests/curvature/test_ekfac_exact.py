"""Where Kronecker factors are the curvature itself, and what is best where they are not.

Sums of covariances over ``n`` samples are divided by ``n`` on either side: with one position a
sample, KFAC is the mean of ``a a^T`` times the mean over samples of the sum over terms of
``g g^T``.
"""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.functional import cross_entropy

from metaaudit.curvature import Bases, Covariances, Network, corrected, fisher_terms
from tests.curvature.dense import (
    assert_close,
    entry_indices,
    fisher_matrix,
    gauss_newton,
    term_gradients,
    trained,
)
from tests.curvature.networks import CLASSES, NETWORKS, Case


class Block:
    """One group of a layer: Kronecker factors, basis and corrected eigenvalues as matrices."""

    def __init__(self, sums, bases, squares, path, group=0):
        n = sums.count
        entering = sums.entering[path][group] / n
        leaving = sums.leaving[path][group] / n
        self.kfac = torch.kron(leaving, entering)
        self.basis = torch.kron(bases.leaving[path][group], bases.entering[path][group])
        self.values = corrected(squares, n)[path][group].flatten()

    @property
    def ekfac(self):
        return self.basis @ torch.diag(self.values) @ self.basis.T


def blocks(module, inputs, labels, terms):
    """By layer and group, and the entries of the flat vector that it is about."""
    network = Network.of(module, inputs)
    record = network.record(network.parameters, inputs, labels, terms)
    sums = Covariances.of(record)
    bases = Bases.of(network, sums, inputs)
    squares = bases.squares(record)
    for path in network.layers:
        for group, indices in enumerate(entry_indices(module, path)):
            yield Block(sums, bases, squares, path, group), indices.flatten()


def own_block(matrix, indices):
    return matrix[indices[:, None], indices]


def dense_layers(*widths, activation=nn.Tanh, bias=True):
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
def test_one_sample_with_one_term_is_of_rank_one(bias, seed):
    case = Case(lambda: dense_layers(4, 5, 3, CLASSES, bias=bias), (4,), seed=seed)
    module, (x, y) = case.module(), case.data(1, seed=seed)
    expected = fisher_matrix(term_gradients(module, x, y, "empirical"))
    for block, indices in blocks(module, x, y, fisher_terms(cross_entropy, "empirical")):
        exact = own_block(expected, indices)
        assert torch.linalg.matrix_rank(exact) == 1
        assert_close(block.ekfac, exact)
        assert_close(block.kfac, exact)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)], ids=str)
def test_one_sample_has_the_gauss_newton_blocks(hidden, seed):
    case = Case(lambda: dense_layers(4, *hidden, CLASSES), (4,), seed=seed)
    module, (x, y) = case.module(), case.data(1, seed=seed)
    expected = gauss_newton(module, x)
    assert_close(fisher_matrix(term_gradients(module, x, y, "true")), expected)
    for block, indices in blocks(module, x, y, fisher_terms(cross_entropy, "true")):
        assert_close(block.ekfac, own_block(expected, indices))
        assert_close(block.kfac, own_block(expected, indices))


def squared_error_terms(outputs, labels):
    """The Hessian of half the squared error on the outputs is the identity."""
    classes = outputs.shape[1]
    return torch.eye(classes, dtype=outputs.dtype)[:, None].expand(classes, *outputs.shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
def test_deep_linear_network_with_squared_error_is_exact(bias, seed):
    case = Case(
        lambda: dense_layers(4, 6, 5, CLASSES, activation=nn.Identity, bias=bias), (4,), seed=seed
    )
    module, (x, y) = case.module(), case.data(9, seed=seed)
    jacobian = jacrev(lambda params: functional_call(module, params, (x,)))(trained(module))
    rows = torch.cat([part.flatten(2) for part in jacobian.values()], dim=2).flatten(0, 1)
    expected = rows.T @ rows / 9
    for block, indices in blocks(module, x, y, squared_error_terms):
        assert_close(block.kfac, own_block(expected, indices))
        assert_close(block.ekfac, own_block(expected, indices))


def steep(name):
    """Larger weights, so that gradients depend on the inputs, which KFAC takes them not to."""
    module = NETWORKS[name].module()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(3.0)
    return module


@pytest.mark.parametrize("fisher", ["empirical", "true"])
@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_corrected_eigenvalues_are_the_best_in_their_basis(name, fisher):
    module, (x, y) = steep(name), NETWORKS[name].data(9)
    matrix = fisher_matrix(term_gradients(module, x, y, fisher))
    for block, indices in blocks(module, x, y, fisher_terms(cross_entropy, fisher)):
        exact = own_block(matrix, indices)
        best = (block.basis.T @ exact @ block.basis).diagonal()
        assert_close(block.values, best)
        # Pythagoras: other eigenvalues are further from the matrix by as much as from the best.
        for other in (block.kfac, block.ekfac + torch.eye(len(exact)) * best.max()):
            values = (block.basis.T @ other @ block.basis).diagonal()
            excess = (other - exact).square().sum() - (block.ekfac - exact).square().sum()
            assert_close(excess, (values - best).square().sum())
            assert excess > 0


@pytest.mark.parametrize("fisher", ["empirical", "true"])
def test_neither_is_exact_in_a_nonlinear_network_with_many_samples(fisher):
    module, (x, y) = steep("mlp"), NETWORKS["mlp"].data(9)
    matrix = fisher_matrix(term_gradients(module, x, y, fisher))
    for block, indices in blocks(module, x, y, fisher_terms(cross_entropy, fisher)):
        exact = own_block(matrix, indices)
        errors = [(own - exact).norm() / exact.norm() for own in (block.ekfac, block.kfac)]
        assert 0.1 < errors[0] < 0.97 * errors[1]
