"""The same inverse and the same scores as curvlinops' EK-FAC."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from metaaudit.curvature import EKFAC
from metaaudit.models import Layout
from tests.curvature.dense import assert_close, flat_gradients, trained
from tests.curvature.networks import CLASSES, Case, gaussian

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the packages that it imports
    curvlinops = pytest.importorskip("curvlinops", reason="a peer, not among the test's packages")

N_TRAIN, N_TEST, DAMPING = 30, 6, 0.03
FISHERS = {
    "empirical": curvlinops.FisherType.EMPIRICAL,
    "true": curvlinops.FisherType.TYPE2,
}
NETWORKS = {
    "mlp": Case(
        lambda: nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, CLASSES)
        ),
        (6,),
    ),
    "conv": Case(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(3, 4, (2, 3), stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(36, CLASSES),
        ),
        (2, 6, 7),
    ),
    "no bias": Case(
        lambda: nn.Sequential(
            nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, CLASSES, bias=False)
        ),
        (6,),
    ),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    return NETWORKS[request.param]


@pytest.fixture(params=FISHERS)
def fisher(request):
    return request.param


def their_operator(module, data, fisher):
    module = copy.deepcopy(module)
    return curvlinops.EKFACLinearOperator(
        module,
        nn.CrossEntropyLoss(),
        list(module.parameters()),
        [data],
        fisher_type=FISHERS[fisher],
        separate_weight_and_bias=False,
        check_deterministic=False,
    )


def times(operator, module, vectors):
    """Products with rows of flat vectors."""
    split = Layout.of(trained(module)).split(vectors)
    found = operator @ [part.movedim(0, -1) for part in split.values()]
    return torch.cat([part.movedim(-1, 0).flatten(1) for part in found], dim=1)


def test_products_with_the_matrix_agree(case, fisher):
    module, data = case.module(), case.data(N_TRAIN)
    factors = EKFAC.fit(module, cross_entropy, [data], fisher=fisher).factors
    vectors = gaussian(5, factors.layout.size)
    expected = times(their_operator(module, data, fisher), module, vectors)
    assert_close(factors.apply(factors.eigenvalues, vectors), expected)


def test_products_with_the_damped_inverse_agree(case, fisher):
    module, data = case.module(), case.data(N_TRAIN)
    own = EKFAC.fit(module, cross_entropy, [data], fisher=fisher)
    inverse = curvlinops.KFACInverseLinearOperator(
        their_operator(module, data, fisher), damping=DAMPING, use_exact_damping=True
    )
    vectors = gaussian(5, own.factors.layout.size)
    assert_close(own.inverse_matvec(vectors, DAMPING), times(inverse, module, vectors))


def test_scores_agree(case, fisher):
    module, data, test = case.module(), case.data(N_TRAIN), case.data(N_TEST, seed=2)
    own = EKFAC.fit(module, cross_entropy, [data], fisher=fisher)
    inverse = curvlinops.KFACInverseLinearOperator(
        their_operator(module, data, fisher), damping=DAMPING, use_exact_damping=True
    )
    train_gradients, test_gradients = (flat_gradients(module, *part) for part in (data, test))
    expected = train_gradients @ times(inverse, module, test_gradients).T
    assert_close(own.scores([data], [test], DAMPING), expected)


def test_heuristic_damping_agrees(case, fisher):
    """It has one damping for all layers; so each layer's own is added to the eigenvalues."""
    module, data = case.module(), case.data(N_TRAIN)
    own = EKFAC.fit(module, cross_entropy, [data], fisher=fisher)
    operator = their_operator(module, data, fisher)
    operator.compute_kronecker_factors()
    operator.compute_eigenvalue_correction()
    for values in operator.state_dict()["corrected_eigenvalues"].values():
        for part in values.values() if isinstance(values, dict) else [values]:
            part.add_(0.1 * part.mean())
    inverse = curvlinops.KFACInverseLinearOperator(operator, damping=0.0, use_exact_damping=True)
    vectors = gaussian(5, own.factors.layout.size)
    assert_close(own.inverse_matvec(vectors), times(inverse, module, vectors))
