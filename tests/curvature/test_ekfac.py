"""EK-FAC of whole models against dense matrices."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from metaaudit.curvature import EKFAC, Network, ekfac
from metaaudit.models import Model
from tests.curvature.dense import Dense, assert_close, flat_gradients
from tests.curvature.fitted import N_TEST, N_TRAIN, Fitted, cut
from tests.curvature.networks import CLASSES, NETWORKS, Case, gaussian

DAMPINGS = ["heuristic", 0.05, 1]


@pytest.fixture(params=["empirical", "true"])
def fisher(request):
    return request.param


@pytest.fixture(params=NETWORKS)
def fitted(request, fisher):
    return Fitted(request.param, fisher)


@pytest.mark.parametrize("damping", DAMPINGS)
def test_inverse_is_that_of_the_dense_matrix(fitted, damping):
    dense = fitted.dense
    vectors = gaussian(3, dense.size)
    expected = dense.solve(vectors, damping)
    assert_close(fitted.ekfac.inverse_matvec(vectors, damping), expected)
    assert_close(fitted.ekfac.inverse_matvec(vectors[1], damping), expected[1])


@pytest.mark.parametrize("damping", DAMPINGS)
def test_scores_are_products_with_the_dense_inverse(fitted, damping):
    train, test = fitted.gradients(fitted.train), fitted.gradients(fitted.test)
    expected = train @ fitted.dense.solve(test, damping).T
    found = fitted.ekfac.scores([fitted.train], [fitted.test], damping)
    assert found.shape == (N_TRAIN, N_TEST)
    assert_close(found, expected)


@pytest.mark.parametrize("damping", DAMPINGS)
def test_self_influence_is_the_quadratic_form(fitted, damping):
    train = fitted.gradients(fitted.train)
    expected = (train * fitted.dense.solve(train, damping)).sum(1)
    found = fitted.ekfac.self_influence([fitted.train], damping)
    assert_close(found, expected)
    assert (found > 0).all()
    both = fitted.ekfac.scores([fitted.train], [fitted.train], damping)
    assert_close(found, both.diagonal())


def test_heuristic_damping_is_the_default(fitted):
    found, vector = fitted.ekfac, gaussian(fitted.ekfac.factors.layout.size)
    train, test = [fitted.train], [fitted.test]
    for given, default in (
        (found.inverse_matvec(vector, "heuristic"), found.inverse_matvec(vector)),
        (found.scores(train, test, "heuristic"), found.scores(train, test)),
        (found.self_influence(train, "heuristic"), found.self_influence(train)),
    ):
        assert torch.equal(given, default)


def test_positive_scores_lower_the_test_loss():
    """A small step on one training instance, preconditioned, against the change of each loss."""
    fitted = Fitted("positions", "empirical")
    scores = fitted.ekfac.scores([fitted.train], [fitted.test], 0.1)
    assert (scores > 0.01).any() and (scores < -0.01).any()
    steps = fitted.ekfac.inverse_matvec(fitted.gradients(fitted.train), 0.1)
    layout, params = fitted.ekfac.factors.layout, fitted.ekfac.factors.network.parameters
    x, y = fitted.test

    def losses(vector):
        outputs = functional_call(fitted.module, layout.split(vector), (x,))
        return cross_entropy(outputs, y, reduction="none").detach()

    point, rate = layout.flatten(params), 1e-5
    for i, step in enumerate(steps):
        change = (losses(point - rate * step) - losses(point + rate * step)) / 2
        # Truncation and rounding of a central difference.
        assert_close(-change / rate, scores[i], 1e-7)


# How the data are cut


@pytest.mark.parametrize("size", [1, 3, 7])
def test_batch_size_changes_nothing(fitted, size):
    other = EKFAC.fit(fitted.module, cross_entropy, cut(fitted.train, size), fisher=fitted.fisher)
    eye = torch.eye(fitted.ekfac.factors.layout.size, dtype=torch.float64)
    assert_close(other.inverse_matvec(eye), fitted.ekfac.inverse_matvec(eye))
    for path, values in fitted.ekfac.factors.eigenvalues.items():
        assert_close(other.factors.eigenvalues[path], values)
    train, test = cut(fitted.train, size), cut(fitted.test, size)
    assert_close(other.scores(train, test), fitted.ekfac.scores([fitted.train], [fitted.test]))
    assert_close(other.self_influence(train), fitted.ekfac.self_influence([fitted.train]))


def test_order_and_copies_of_the_data_change_nothing(fitted):
    x, y = fitted.train
    twice = [(x.flip(0), y.flip(0)), (x, y)]
    other = EKFAC.fit(fitted.module, cross_entropy, twice, fisher=fitted.fisher)
    eye = torch.eye(fitted.ekfac.factors.layout.size, dtype=torch.float64)
    assert_close(other.inverse_matvec(eye), fitted.ekfac.inverse_matvec(eye))


def count_records(monkeypatch):
    calls = []
    record = Network.record

    def counted(self, *args):
        calls.append(1)
        return record(self, *args)

    monkeypatch.setattr(Network, "record", counted)
    return calls


# No record, one of three batches of 3, 3 and 2 samples, or all are kept.
@pytest.mark.parametrize(("kept", "passes"), [(0, 6), (3000, 6), (1 << 30, 3)])
def test_records_are_kept_or_made_again_with_the_same_result(monkeypatch, kept, passes):
    fitted = Fitted("mlp")
    batches = cut(fitted.train, 3)
    calls = count_records(monkeypatch)
    monkeypatch.setattr(ekfac, "KEPT_BYTES", kept)
    again = EKFAC.fit(fitted.module, cross_entropy, batches)
    assert len(calls) == passes
    vectors = gaussian(3, again.factors.layout.size)
    assert_close(again.inverse_matvec(vectors), fitted.ekfac.inverse_matvec(vectors))


def test_data_loaders_serve_as_batches():
    fitted = Fitted("conv")
    loader = DataLoader(
        TensorDataset(*fitted.train),
        batch_size=3,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )
    other = EKFAC.fit(fitted.module, cross_entropy, loader)
    vectors = gaussian(2, other.factors.layout.size)
    assert_close(other.inverse_matvec(vectors), fitted.ekfac.inverse_matvec(vectors))


def test_scores_take_iterators():
    fitted = Fitted("linear")
    found = fitted.ekfac.scores(iter(cut(fitted.train, 3)), iter(cut(fitted.test, 2)))
    assert_close(found, fitted.ekfac.scores([fitted.train], [fitted.test]))


# Models


def test_true_fisher_does_not_see_the_labels():
    fitted = Fitted("mlp")
    x, y = fitted.train
    other = EKFAC.fit(fitted.module, cross_entropy, [(x, y.flip(0))])
    vectors = gaussian(2, other.factors.layout.size)
    assert torch.equal(other.inverse_matvec(vectors), fitted.ekfac.inverse_matvec(vectors))


def test_in_place_activations_after_the_last_layers():
    def build(inplace):
        return nn.Sequential(
            nn.Linear(4, 5), nn.ReLU(inplace), nn.Linear(5, CLASSES), nn.LeakyReLU(0.3, inplace)
        )

    x, y = Case(nn.Identity, (4,)).data()
    found, expected = (
        EKFAC.fit(Case(lambda i=inplace: build(i), (4,)).module(), cross_entropy, [(x, y)])
        for inplace in (True, False)
    )
    assert_close(found.scores([(x, y)], [(x, y)]), expected.scores([(x, y)], [(x, y)]))
    dense = Dense.of(Case(lambda: build(False), (4,)).module(), x, y, "true")
    vectors = gaussian(3, dense.size)
    assert_close(found.inverse_matvec(vectors), dense.solve(vectors, "heuristic"))


def test_batch_norm_of_a_model_uses_the_statistics_of_the_batch(fisher):
    """With nothing to train before a normalisation, no sample's gradient is another's."""
    case = Case(
        lambda: nn.Sequential(
            nn.BatchNorm2d(2), nn.Tanh(), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, CLASSES)
        ),
        (2, 3, 3),
    )
    module, (x, y) = Model(case.module(), "").module, case.data(N_TRAIN)
    found = EKFAC.fit(module, cross_entropy, [(x, y)], fisher=fisher)
    dense = Dense.of(module, x, y, fisher)
    gradients = flat_gradients(module, x, y)
    expected = gradients @ dense.solve(gradients, "heuristic").T
    assert_close(found.scores([(x, y)], [(x, y)]), expected)
    shifted = EKFAC.fit(module, cross_entropy, [(5 * x + 3, y)], fisher=fisher)
    # The constant beside the variance keeps this from being exact.
    assert_close(shifted.scores([(5 * x + 3, y)], [(5 * x + 3, y)]), expected, 1e-3)


def test_frozen_layers_have_no_entries():
    module, (x, y) = NETWORKS["mlp"].module(), NETWORKS["mlp"].data(N_TRAIN)
    module[0].requires_grad_(False)
    found = EKFAC.fit(module, cross_entropy, [(x, y)])
    dense = Dense.of(module, x, y, "true")
    vectors = gaussian(3, dense.size)
    assert dense.size == sum(p.numel() for p in module[1:].parameters())
    assert_close(found.inverse_matvec(vectors), dense.solve(vectors, "heuristic"))


def test_layers_that_no_gradient_reaches_have_no_influence():
    module, (x, y) = NETWORKS["mlp"].module(), NETWORKS["mlp"].data(N_TRAIN)
    with torch.no_grad():
        module[4].weight.zero_()
    found = EKFAC.fit(module, cross_entropy, [(x, y)]).scores([(x, y)], [(x, y)])
    module[:4].requires_grad_(False)
    last = EKFAC.fit(module, cross_entropy, [(x, y)]).scores([(x, y)], [(x, y)])
    assert_close(found, last)


def test_single_precision_stays_so():
    case = NETWORKS["conv"]
    expected = Fitted("conv").ekfac.scores([case.data()], [case.data()])
    x, y = case.data()
    train = tuple(part.float() if part.is_floating_point() else part for part in case.data(N_TRAIN))
    single = EKFAC.fit(case.module().float(), cross_entropy, [train])
    found = single.scores([(x.float(), y)], [(x.float(), y)])
    assert found.dtype == single.self_influence([train]).dtype == torch.float32
    # Rounding of single precision, divided by the damping.
    assert_close(found.double(), expected, 1e-4)
    vectors = gaussian(2, single.factors.layout.size)
    assert single.inverse_matvec(vectors).dtype == torch.float64
    assert single.inverse_matvec(vectors.float()).dtype == torch.float32


@pytest.mark.parametrize("train", [True, False])
def test_model_is_not_changed(fitted, train):
    module = fitted.module.train(train)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    found = EKFAC.fit(module, cross_entropy, [fitted.train], fisher=fitted.fisher)
    found.scores([fitted.train], [fitted.test])
    found.self_influence([fitted.train])
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    for part in module.modules():
        assert part.training == train and not part._forward_hooks
    assert all(p.requires_grad for p in module.parameters())
