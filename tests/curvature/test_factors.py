"""Covariances, eigenbases and corrected eigenvalues of whole networks, against dense sums."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from metaaudit.curvature import (
    Bases,
    Covariances,
    Factors,
    Network,
    Record,
    corrected,
    fisher_terms,
    record_tasks,
)
from metaaudit.errors import ConfigError, IncompleteError
from metaaudit.models import Layout
from tests.curvature.dense import (
    Dense,
    assert_close,
    entry_indices,
    is_kronecker,
    outer_sum,
    passes,
    term_gradients,
    trained_layers,
)
from tests.curvature.networks import NETWORKS, gaussian

FISHERS = ["empirical", "true"]


class Fitted:
    """A network and what is fitted to one batch."""

    def __init__(self, name, fisher="true", n=7):
        self.case = NETWORKS[name]
        self.module, self.data = self.case.module(), self.case.data(n)
        self.network = Network.of(self.module, self.data[0])
        self.params = self.network.parameters
        self.terms = fisher_terms(cross_entropy, fisher)
        self.record = self.network.record(self.params, *self.data, self.terms)
        self.sums = Covariances.of(self.record)
        self.bases = Bases.of(self.network, self.sums, next(iter(self.params.values())))
        squares = self.bases.squares(self.record)
        self.factors = Factors(self.network, self.bases, corrected(squares, self.sums.count))

    def dense(self, fisher):
        return Dense.of(self.module, *self.data, fisher)


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture(params=FISHERS)
def fisher(request):
    return request.param


def test_covariances_are_sums_over_samples_positions_and_terms(name, fisher):
    fitted = Fitted(name, fisher)
    for path, (a, g) in passes(fitted.module, *fitted.data, fisher).items():
        assert_close(fitted.sums.entering[path], outer_sum(a))
        assert_close(fitted.sums.leaving[path], outer_sum(g))
    assert fitted.sums.count == 7


def test_covariances_of_shards_add_up(name):
    fitted = Fitted(name)
    shards = [
        Covariances.of(fitted.network.record(fitted.params, x, y, fitted.terms))
        for x, y in zip(*(part.split(3) for part in fitted.data), strict=True)
    ]
    total = shards[0] + shards[1] + shards[2]
    assert total.count == 7
    for path in fitted.network.layers:
        assert_close(total.entering[path], fitted.sums.entering[path])
        assert_close(total.leaving[path], fitted.sums.leaving[path])


def test_bases_are_orthonormal_and_diagonalise(name):
    fitted = Fitted(name)
    for path, part in trained_layers(fitted.module).items():
        for basis, covariance in (
            (fitted.bases.entering[path], fitted.sums.entering[path]),
            (fitted.bases.leaving[path], fitted.sums.leaving[path]),
        ):
            eye = torch.eye(basis.shape[-1], dtype=torch.float64).expand_as(basis)
            if is_kronecker(part):
                assert_close(basis.mT @ basis, eye)
                turned = basis.mT @ covariance @ basis
                assert_close(turned, torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1)))
            else:
                assert torch.equal(basis, eye)


def kronecker_basis(fitted, path, group):
    return torch.kron(fitted.bases.leaving[path][group], fitted.bases.entering[path][group])


def test_corrected_eigenvalues_are_means_of_squared_rotated_gradients(name, fisher):
    fitted = Fitted(name, fisher)
    gradients = term_gradients(fitted.module, *fitted.data, fisher)
    for path, values in fitted.factors.eigenvalues.items():
        for group, indices in enumerate(entry_indices(fitted.module, path)):
            basis = kronecker_basis(fitted, path, group)
            total = sum(
                (basis.T @ gradient[indices.flatten()]).square()
                for term in gradients
                for gradient in term
            )
            assert_close(values[group].flatten(), total / 7)


def test_rotations_are_products_with_the_kronecker_basis(name):
    fitted = Fitted(name)
    layout = Layout.of(fitted.params)
    vectors = gaussian(2, 3, layout.size)
    rotated = fitted.bases.rotate(fitted.network, layout, vectors)
    for path, found in rotated.items():
        for group, indices in enumerate(entry_indices(fitted.module, path)):
            expected = vectors[..., indices.flatten()] @ kronecker_basis(fitted, path, group)
            assert_close(found[:, :, group].flatten(-2), expected)
    assert_close(fitted.bases.rotate_back(fitted.network, layout, rotated), vectors)


def test_apply_is_a_product_with_the_dense_matrix(name, fisher):
    fitted = Fitted(name, fisher)
    dense = fitted.dense(fisher).matrix
    eye = torch.eye(len(dense), dtype=torch.float64)
    assert_close(fitted.factors.apply(fitted.factors.eigenvalues, eye), dense)
    vector = gaussian(len(dense))
    assert_close(fitted.factors.apply(fitted.factors.eigenvalues, vector), dense @ vector)


@pytest.mark.parametrize("damping", ["heuristic", 0.03])
def test_inverse_eigenvalues_invert_the_damped_matrix(name, damping):
    fitted = Fitted(name)
    inverse, dense = fitted.factors.inverse_eigenvalues(damping), fitted.dense("true")
    vectors = gaussian(4, dense.size)
    assert_close(fitted.factors.apply(inverse, vectors), dense.solve(vectors, damping))


def test_heuristic_damping_is_a_tenth_of_the_mean_of_the_layer():
    factors = Fitted("groups").factors
    for path, values in factors.damped("heuristic").items():
        own = factors.eigenvalues[path]
        assert_close(values, own + 0.1 * own.sum() / own.numel())


@pytest.mark.parametrize("damping", [-1.0, -1e-9, -1e-300])
def test_negative_damping_is_refused(damping):
    factors = Fitted("linear").factors
    positive = {path: values + 1 for path, values in factors.eigenvalues.items()}
    with pytest.raises(ConfigError, match=rf"^damping: is {damping}; expected a number"):
        replace(factors, eigenvalues=positive).inverse_eigenvalues(damping)


def test_no_damping_is_for_regular_matrices_only():
    factors = Fitted("mlp").factors
    # Probabilities add up to one: an eigenvalue of 0, which rounding can make positive.
    assert factors.eigenvalues["4"].min() < 1e-30
    with pytest.raises(ConfigError, match=r"^damping: 0\.0 leaves layer 4 singular"):
        replace(factors, eigenvalues={"4": factors.eigenvalues["4"]}).inverse_eigenvalues(0.0)
    regular = {path: values + 1e-6 for path, values in factors.eigenvalues.items()}
    inverse = replace(factors, eigenvalues=regular).inverse_eigenvalues(0.0)
    for path, values in regular.items():
        assert_close(inverse[path], 1 / values)


def test_layer_without_any_gradient_gets_no_share():
    factors = Fitted("mlp").factors
    dead = {path: values * (path != "2") for path, values in factors.eigenvalues.items()}
    inverse = replace(factors, eigenvalues=dead).inverse_eigenvalues("heuristic")
    assert torch.equal(inverse["2"], torch.zeros(1, 5, 6, dtype=torch.float64))
    assert all((inverse[path] > 0).all() for path in ("0", "4"))


def test_covariance_that_is_not_finite_names_its_layer():
    fitted = Fitted("mlp")
    fitted.sums.entering["2"][0, 1, 1] = torch.nan
    with pytest.raises(IncompleteError, match=r"^EK-FAC, layer 2: has a covariance that is"):
        Bases.of(fitted.network, fitted.sums, torch.zeros(1))


def test_bases_keep_the_precision_of_the_parameters():
    fitted = Fitted("groups")
    bases = Bases.of(fitted.network, fitted.sums, torch.zeros(1, dtype=torch.float32))
    for path, basis in bases.entering.items():
        assert basis.dtype == torch.float32
        assert torch.equal(basis, fitted.bases.entering[path].float())


def test_bases_come_back_from_arrays():
    fitted = Fitted("groups")
    arrays = fitted.bases.arrays()
    assert len(arrays) == 2 * len(fitted.network.layers)
    back = Bases.of_arrays(fitted.network, arrays)
    assert back == fitted.bases


# A leading dimension of tasks


def tasks(fitted, n_tasks=3):
    """Their parameters and data."""
    data = [fitted.case.data(n=5, seed=10 + seed) for seed in range(n_tasks)]
    theta = {key: p + 0.1 * gaussian(n_tasks, *p.shape, seed=2) for key, p in fitted.params.items()}
    return theta, *(torch.stack(part) for part in zip(*data, strict=True))


def test_factors_of_tasks_are_those_of_each(name):
    fitted = Fitted(name)
    theta, inputs, labels = tasks(fitted)
    record = record_tasks(fitted.network, theta, inputs, labels, fitted.terms)
    sums = Covariances.of(record)
    assert sums.count == 5
    bases = Bases.of(fitted.network, sums, inputs)
    factors = Factors(fitted.network, bases, corrected(bases.squares(record), sums.count))
    vectors = gaussian(3, factors.layout.size)
    found = factors.apply(factors.inverse_eigenvalues("heuristic"), vectors)
    for k in range(3):
        own = {key: p[k] for key, p in theta.items()}
        module = fitted.case.module()
        module.load_state_dict(own, strict=False)
        dense = Dense.of(module, inputs[k], labels[k], "true")
        assert_close(found[k], dense.solve(vectors[k : k + 1], "heuristic")[0])


def test_covariances_over_tasks_pool_their_samples(name):
    fitted = Fitted(name)
    _, inputs, labels = tasks(fitted)
    same = {key: p.expand(3, *p.shape) for key, p in fitted.params.items()}
    record = record_tasks(fitted.network, same, inputs, labels, fitted.terms)
    found = Covariances.of(record).over_tasks()
    pooled = fitted.network.record(
        fitted.params, inputs.flatten(0, 1), labels.flatten(), fitted.terms
    )
    expected = Covariances.of(pooled)
    assert found.count == expected.count == 15
    for path in fitted.network.layers:
        assert_close(found.entering[path], expected.entering[path])
        assert_close(found.leaving[path], expected.leaving[path])


def test_one_basis_serves_tasks_with_eigenvalues_of_their_own():
    fitted = Fitted("conv")
    theta, inputs, labels = tasks(fitted)
    record = record_tasks(fitted.network, theta, inputs, labels, fitted.terms)
    squares = fitted.bases.squares(record)
    for k in range(3):
        alone = Record(
            {path: a[k] for path, a in record.activations.items()},
            {path: g[k] for path, g in record.gradients.items()},
        )
        for path, expected in fitted.bases.squares(alone).items():
            assert_close(squares[path][k], expected)
    factors = Factors(fitted.network, fitted.bases, corrected(squares, 5))
    vectors = gaussian(3, factors.layout.size)
    found = factors.apply(factors.eigenvalues, vectors)
    for k in range(3):
        values = {path: value[k] for path, value in factors.eigenvalues.items()}
        assert_close(found[k], factors.apply(values, vectors[k]))


def test_layout_is_the_order_of_the_named_parameters(name):
    fitted = Fitted(name)
    expected = {key: p.shape for key, p in fitted.module.named_parameters()}
    assert list(fitted.factors.layout.shapes.items()) == list(expected.items())
    assert fitted.factors.layout.size == sum(p.numel() for p in fitted.module.parameters())
