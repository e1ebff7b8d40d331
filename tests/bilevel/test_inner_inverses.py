"""Inverses of the inner Hessian against dense matrices of each task that are built without them."""

import pytest
import torch
from torch import nn
from torch.func import hessian, jacrev

from metaaudit.bilevel import InnerMethod, InnerProblem, Objective
from metaaudit.bilevel.inner import exact
from metaaudit.config.influence import InfluenceConfig
from metaaudit.config.model import Conv4Config
from metaaudit.errors import ConfigError
from metaaudit.learners import MAML
from metaaudit.models import Model, build_model
from tests.bilevel.small_networks import (
    N_TASKS,
    WAYS,
    assert_close,
    batching,
    by_layer,
    fisher_gradients,
    gaussian,
    implicit,
    kronecker_basis,
    layer_pass,
    layers_of,
    random_tasks,
    small_mlp,
    task_tensors,
)

RHO = 0.7


def square_loss(outputs, labels):
    return 0.5 * ((outputs - labels[:, None]) ** 2).sum(-1)


@pytest.fixture
def case():
    objective = Objective(small_mlp(), MAML(0.3, 2))
    return objective, objective.forward.initial(), random_tasks()


def adapted(found, k):
    """Flat adapted parameters of a task, and its tensors."""
    return found.theta[k], task_tensors(found.task_set, k)


def support_outputs(found, k):
    theta, data = adapted(found, k)

    def outputs(vector):
        params = found.layout.unflatten(vector, found.params)
        return found.objective.forward(params, data.support_x)

    return outputs, theta, data.support_y


def inner_hessian(found, k):
    """The Hessian of the mean support loss."""
    outputs, theta, labels = support_outputs(found, k)
    return hessian(lambda vector: found.objective.loss(outputs(vector), labels).mean())(theta)


def gauss_newton(found, k):
    """``J^T H_out J / n``; a row of the outputs may depend on all of the inputs."""
    outputs, theta, labels = support_outputs(found, k)
    jacobian, at = jacrev(outputs)(theta), outputs(theta)
    total = 0
    for i in range(len(at)):
        curvature = hessian(lambda out, i=i: found.objective.loss(out[None], labels[i : i + 1])[0])
        total = total + jacobian[i].T @ curvature(at[i]) @ jacobian[i]
    return total / len(at)


def applied(found, vectors):
    """``[n_tasks, n_vectors, n_params]``: each task's inverse times the same vectors."""
    result = vectors.new_empty(len(found.task_set), *vectors.shape)
    for batch in found.batches():
        theta = found.linearise(batch).theta
        for column, vector in enumerate(vectors):
            same = vector.expand(len(batch.rows), -1)
            result[batch.rows, column] = found.inverse.apply(batch, theta, same)
    return result


def inverses(found):
    return applied(found, torch.eye(found.layout.size, dtype=torch.float64))


def inverse_of(matrix, rho=RHO):
    return torch.linalg.inv(matrix + rho * torch.eye(len(matrix), dtype=matrix.dtype))


@pytest.mark.parametrize(
    ("inverse", "matrix"), [("dense", inner_hessian), ("cg", inner_hessian), ("ggn", gauss_newton)]
)
@pytest.mark.parametrize("outputs", [WAYS, 1], ids=["cross-entropy", "square loss"])
def test_inverts_its_matrix(case, inverse, matrix, outputs):
    if outputs == 1:
        objective = Objective(small_mlp(outputs=1), MAML(0.3, 2), square_loss)
        case = objective, objective.forward.initial(), case[2]
    found = implicit(*case, inverse, rho=RHO)
    expected = torch.stack([inverse_of(matrix(found, k)) for k in range(N_TASKS)])
    assert_close({"": inverses(found)}, {"": expected}, 1e-10)


def test_gauss_newton_is_exact_where_batch_normalisation_couples_the_instances():
    config = Conv4Config(name="conv4", hidden=3, ways=WAYS)
    model = build_model(config, input_shape=(1, 16, 16), ways=WAYS, seed=0)
    objective = Objective(model.to(torch.device("cpu"), torch.float64), MAML(0.1, 1))
    task_set = random_tasks((1, 16, 16), n_tasks=2)
    found = implicit(objective, model.initial(), task_set, "ggn", rho=RHO)
    vectors = gaussian(3, found.layout.size)
    for k, solved in enumerate(applied(found, vectors)):
        back = solved @ gauss_newton(found, k) + RHO * solved
        assert_close({"": back}, {"": vectors}, 1e-10)


def ekfac_matrix(found, k, basis=None, labels=False):
    """``Q diag(lambda) Q^T`` of a task, its layers' blocks formed as Kronecker products."""
    flat, data = adapted(found, k)
    theta = found.layout.unflatten(flat, found.params)
    one = layer_pass(theta, data.support_x, data.support_y if labels else None)
    basis = kronecker_basis([one]) if basis is None else basis
    values = (fisher_gradients(one) @ basis).square().sum(1).mean(0)
    order = by_layer(found.params).argsort()
    return (basis @ torch.diag(values) @ basis.T)[order][:, order]


@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_ekfac_of_each_task_equals_kronecker_products_and_rho_alone(case, fisher):
    found = implicit(*case, "ekfac", rho=RHO, fisher=fisher)
    matrices = [ekfac_matrix(found, k, labels=fisher == "empirical") for k in range(N_TASKS)]
    expected = torch.stack([inverse_of(matrix) for matrix in matrices])
    assert_close({"": inverses(found)}, {"": expected}, 1e-10)


@pytest.mark.parametrize("rho", [1e-3, 1.0, 50.0])
def test_ekfac_is_shifted_by_exactly_rho(case, rho):
    """No damping beside it: the inverse's eigenvalues are 1 / (lambda + rho), its largest 1/rho."""
    found = implicit(*case, "ekfac", rho=rho)
    for k, inverse in enumerate(inverses(found)):
        expected = 1 / (torch.linalg.eigvalsh(ekfac_matrix(found, k)).flip(0) + rho)
        # Eigenvalues of 1e-17 beside a rho of 1e-3 are the rounding of those near 1.
        torch.testing.assert_close(torch.linalg.eigvalsh(inverse), expected, rtol=1e-11, atol=0)
        assert float(torch.linalg.eigvalsh(inverse)[-1]) == pytest.approx(1 / rho, rel=1e-11)


@pytest.mark.parametrize("inverse", ["ekfac", "ekfac shared"])
def test_ekfac_is_exact_for_one_instance_and_one_linear_layer(inverse):
    """Then the Hessian is one Kronecker product."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(nn.Linear(3, WAYS).double(), "")
    task_set = random_tasks((3,), n=1, n_tasks=1)
    found = implicit(Objective(model, MAML(0.3, 2)), model.initial(), task_set, inverse, rho=RHO)
    assert_close({"": inverses(found)[0]}, {"": inverse_of(inner_hessian(found, 0))}, 1e-11)


def test_shared_ekfac_has_one_basis_at_the_meta_parameters(case):
    found = implicit(*case, "ekfac shared", rho=RHO)
    data = [task_tensors(found.task_set, k) for k in range(N_TASKS)]
    basis = kronecker_basis([layer_pass(found.params, task.support_x) for task in data])
    matrices = [ekfac_matrix(found, k, basis) for k in range(N_TASKS)]
    expected = torch.stack([inverse_of(matrix) for matrix in matrices])
    assert_close({"": inverses(found)}, {"": expected}, 1e-10)


@pytest.mark.parametrize("basis", ["task", "shared"])
def test_what_ekfac_keeps_of_each_task(case, basis):
    objective, params, task_set = case
    inner = {"inverse": "ekfac", "basis": basis}
    method = InnerMethod(
        InfluenceConfig(derivative="implicit", inner=inner), layers_of(objective.forward, task_set)
    )
    state = method.state(InnerProblem(objective, params, task_set, batching(), RHO))
    leading = {"task": (N_TASKS,), "shared": ()}[basis]
    assert {name: tuple(values.shape) for name, values in state.items()} == {
        "theta": (N_TASKS, 26),
        "stationarity": (N_TASKS,),
        "0:eigenvalues": (N_TASKS, 1, 4, 4),
        "2:eigenvalues": (N_TASKS, 1, 2, 5),
        "0:entering": (*leading, 1, 4, 4),
        "0:leaving": (*leading, 1, 4, 4),
        "2:entering": (*leading, 1, 5, 5),
        "2:leaving": (*leading, 1, 2, 2),
    }


# What goes wrong is told.


LITTLE = 0.45
"""A pull that is less than the negative curvature of some tasks."""


def test_dense_names_the_tasks_whose_hessian_is_indefinite(case):
    found = implicit(*case, "dense", rho=LITTLE)
    smallest = torch.stack(
        [torch.linalg.eigvalsh(inner_hessian(found, k))[0] for k in range(N_TASKS)]
    )
    definite = found.inverse.definite
    assert definite.equal(smallest + LITTLE > 0)
    assert definite.any() and not definite.all()
    assert implicit(*case, "dense", rho=RHO).inverse.definite.all()
    assert found.over([1, 0]).inverse.definite.equal(definite[[1, 0]])


def test_cg_reports_negative_curvature(case):
    found = implicit(*case, "cg", rho=LITTLE)
    applied(found, gaussian(3, found.layout.size))
    report, definite = found.inverse.report, implicit(*case, "dense", rho=LITTLE).inverse.definite
    assert report.solves == 3 * N_TASKS
    # Three random directions do not miss it.
    assert report.negative_curvature == report.not_converged == 3 * int((~definite).sum())
    assert report.residual > 1e-2


@pytest.mark.parametrize(("most", "converged"), [(1, False), (200, True)])
def test_cg_reports_whether_it_converged(case, most, converged):
    found = implicit(*case, "cg", rho=2.0, max_iterations=most)
    applied(found, gaussian(3, found.layout.size))
    report = found.inverse.report
    assert report.not_converged == (0 if converged else 3 * N_TASKS)
    assert (report.residual <= 1e-12) == converged
    assert report.negative_curvature == 0 and 1 <= report.iterations <= most


def test_dense_inverses_have_a_limit(case, monkeypatch):
    numbers = N_TASKS * 26**2
    monkeypatch.setattr(exact, "DENSE_LIMIT", numbers)
    implicit(*case, "dense", rho=RHO)
    monkeypatch.setattr(exact, "DENSE_LIMIT", numbers - 1)
    with pytest.raises(
        ConfigError, match=r"inner\.inverse: dense would hold 6 matrices of 26 x 26"
    ):
        implicit(*case, "dense", rho=RHO)
