"""Influences on a convex problem: finite differences, retraining, identities, the paper."""

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, jacrev

from metaaudit.bilevel import (
    AdjointSolver,
    TotalHessian,
    Unrolled,
    total_gradients,
    weight_derivatives,
)
from metaaudit.config.influence import InfluenceConfig
from metaaudit.influence import instance_influence, task_influence
from metaaudit.models import Layout
from tests.bilevel.convex import DELTA, OBJECTIVE, RHO, ClosedForm, batching, tasks
from tests.bilevel.small_networks import implicit

EXACT = {
    "cg": InfluenceConfig(curvature="exact", solver="cg", damping=0.0, tolerance=1e-13),
    "neumann": InfluenceConfig(
        curvature="exact", solver="neumann", damping=0.0, tolerance=1e-12, max_iterations=5000
    ),
    "dense": InfluenceConfig(curvature="exact", solver="dense", damping=0.0),
}


def differentiated(derivative, params, task_set):
    """``unrolled``, or implicit by an inverse of that name."""
    if derivative == "unrolled":
        return Unrolled(OBJECTIVE, params, task_set, batching())
    return implicit(OBJECTIVE, params, task_set, derivative, rho=RHO)


class Solved:
    """All influences at the minimum of F."""

    def __init__(self, n_tasks=8, n=12, m=6, config=EXACT["cg"], seed=0, derivative="unrolled"):
        self.train = tasks(n_tasks, n, m, seed=seed)
        self.evaluation = tasks(5, n, m, seed=seed + 100, prefix="eval")
        self.closed = ClosedForm(self.train, self.evaluation)
        self.n, self.m = n, m
        self.params = {"theta": torch.from_numpy(self.closed.minimum())}
        train = differentiated(derivative, self.params, self.train)
        self.targets = total_gradients(
            differentiated(derivative, self.params, self.evaluation)
        ).gradients
        self.gradients = torch.from_numpy(total_gradients(train).gradients)
        self.hessian = TotalHessian(train)
        self.adjoint = AdjointSolver(config, self.hessian, self.gradients, DELTA).solve(
            torch.from_numpy(self.targets)
        )
        self.u = self.adjoint.direction.mean(dim=0)
        self.tasks = task_influence(self.gradients, self.adjoint.direction).mean(axis=1)
        found = instance_influence(weight_derivatives(train, self.u), n_tasks)
        self.support, self.query = np.split(found.reshape(n_tasks, n + m), [n], axis=1)

    def loss_with(self, k, a=1.0, w=None, v=None):
        """M at the minimum of F with other weights for task k."""
        return self.closed.evaluation_loss(self.closed.minimum({k: (a, w, v)}))

    def weights(self, size, index, value):
        weights = np.ones(size)
        weights[index] = value
        return weights


def central_difference(function, step=1e-4):
    return (function(1 + step) - function(1 - step)) / (2 * step)


@pytest.mark.parametrize(
    ("solver", "derivative"),
    [*((solver, "unrolled") for solver in EXACT), ("cg", "dense"), ("cg", "cg"), ("cg", "ggn")],
)
def test_influences_equal_finite_differences(solver, derivative):
    solved = Solved(config=EXACT[solver], derivative=derivative)
    assert solved.adjoint.solution.converged
    for k in (0, 3, 7):
        assert solved.tasks[k] == pytest.approx(
            central_difference(lambda a, k=k: solved.loss_with(k, a=a)), rel=1e-6
        )
        for i in (0, 5):
            by_query = central_difference(
                lambda t, k=k, i=i: solved.loss_with(k, v=solved.weights(solved.m, i, t))
            )
            by_support = central_difference(
                lambda t, k=k, i=i: solved.loss_with(k, w=solved.weights(solved.n, i, t))
            )
            assert solved.query[k, i] == pytest.approx(by_query, rel=1e-6)
            assert solved.support[k, i] == pytest.approx(by_support, rel=1e-6)


def leave_one_out(solved, sample=150):
    """Correlation of influences with the actual change of M on retraining without an item."""
    base = solved.closed.evaluation_loss(solved.closed.minimum())
    rng = np.random.default_rng(0)
    n_tasks = len(solved.train)
    places = [(int(k), int(i)) for k, i in rng.integers(0, [n_tasks, solved.n], (sample, 2))]
    queries = [(k, i % solved.m) for k, i in places]
    actual_tasks = [base - solved.loss_with(k, a=0.0) for k in range(n_tasks)]
    actual_support = [
        base - solved.loss_with(k, w=solved.weights(solved.n, i, 0.0)) for k, i in places
    ]
    actual_query = [
        base - solved.loss_with(k, v=solved.weights(solved.m, i, 0.0)) for k, i in queries
    ]
    pairs = {
        "tasks": (solved.tasks, actual_tasks),
        "support": ([solved.support[p] for p in places], actual_support),
        "query": ([solved.query[p] for p in queries], actual_query),
    }
    return {name: float(np.corrcoef(*pair)[0, 1]) for name, pair in pairs.items()}


def test_influences_predict_leave_one_out_retraining():
    correlation = leave_one_out(Solved(n_tasks=40, n=60, m=60))
    assert min(correlation.values()) > 0.99, correlation


@pytest.mark.parametrize("n", [5, 10, 25])
def test_few_shot_leave_one_out_is_reported(n, record_property):
    """Removal is far from linear when the support is small: METHOD.md has the numbers."""
    correlation = leave_one_out(Solved(n_tasks=40, n=n, m=15))
    record_property("leave_one_out", correlation)
    assert min(correlation.values()) > 0


def test_query_influences_of_a_task_add_up_to_its_influence():
    solved = Solved()
    np.testing.assert_allclose(solved.query.sum(axis=1), solved.tasks, rtol=1e-10)


def test_task_influences_add_up_to_delta_u_lambda():
    solved = Solved()
    expected = DELTA * float(solved.u @ solved.params["theta"])
    assert solved.tasks.sum() == pytest.approx(expected, rel=1e-10)


def test_the_total_hessian_is_positive_and_equals_the_dense_one():
    solved = Solved()
    size = solved.closed.size
    dense = sum(solved.closed.terms(k)[0] for k in range(len(solved.train))) / len(solved.train)
    eye = torch.eye(size, dtype=torch.float64)
    np.testing.assert_allclose(solved.hessian(eye).numpy(), dense, rtol=1e-10, atol=1e-14)
    assert np.linalg.eigvalsh(dense)[0] > 0


class PaperForms:
    """The paper's implicit formulas, dense, from L_I and L_O alone (2501.15963).

    L_I(lambda, theta) = (1/n) sum_i l(z_i; theta) + (rho/2) ||theta - lambda||^2 and
    L_O(theta) = (1/m) sum_j l(z~_j; theta), so the direct derivative of L_O in lambda is 0.
    """

    def __init__(self, solved):
        self.solved = solved
        self.lam = solved.params["theta"]
        self.size = len(self.lam)
        self.eye = torch.eye(self.size, dtype=torch.float64)
        n_tasks = len(solved.train)
        total = sum(hessian(lambda lam, k=k: self.outer(k, lam))(self.lam) for k in range(n_tasks))
        self.h_total = total / n_tasks + DELTA * self.eye
        self.d_m = sum(
            grad(lambda lam, task=task: self.eval_outer(task, lam))(self.lam)
            for task in solved.closed.evaluation
        ) / len(solved.closed.evaluation)

    def data(self, task):
        return [torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in task]

    @staticmethod
    def loss(theta, x, y):
        return 0.5 * (x @ theta - y) ** 2

    def inner_hessian(self, k, theta):
        x, y, _, _ = self.data(self.solved.closed.train[k])
        return hessian(lambda t: self.loss(t, x, y).mean())(theta) + RHO * self.eye

    def adapted(self, task, lam):
        x, y, _, _ = self.data(task)
        theta = torch.zeros_like(lam)
        inner = lambda t: self.loss(t, x, y).mean() + RHO / 2 * ((t - lam) ** 2).sum()  # noqa: E731
        return theta - torch.linalg.solve(hessian(inner)(theta), grad(inner)(theta))  # one Newton

    def outer(self, k, lam):
        return self.eval_outer(self.solved.closed.train[k], lam)

    def eval_outer(self, task, lam):
        _, _, x, y = self.data(task)
        return self.loss(self.adapted(task, lam), x, y).mean()

    def task_if(self, k):
        """-(delta I + H_T)^-1 D L_O with D L_O = J^T grad L_O and J = rho H_in^-1."""
        theta = self.adapted(self.solved.closed.train[k], self.lam)
        _, _, x, y = self.data(self.solved.closed.train[k])
        gradient = grad(lambda t: self.loss(t, x, y).mean())(theta)
        total = RHO * torch.linalg.solve(self.inner_hessian(k, theta), gradient)
        return -torch.linalg.solve(self.h_total, total)

    def removal_gain(self, k, i, lam):
        """Stages 1 and 2: P = - grad_theta L_O . inner-IF(z), inner-IF = -H_in^-1 grad l(z)."""
        task = self.solved.closed.train[k]
        x, y, xq, yq = self.data(task)
        theta = self.adapted(task, lam)
        gradient = grad(lambda t: self.loss(t, x[i], y[i]))(theta)
        inner_if = -torch.linalg.solve(self.inner_hessian(k, theta), gradient)
        return -(grad(lambda t: self.loss(t, xq, yq).mean())(theta) @ inner_if)

    def support_if(self, k, i):
        """-H_T^-1 D P: the change of lambda on *removing* z, so it points the other way."""
        total = grad(lambda lam: self.removal_gain(k, i, lam))(self.lam)
        return -torch.linalg.solve(self.h_total, total)


def test_the_papers_implicit_forms_give_the_same_numbers():
    solved = Solved(n_tasks=5, n=6, m=4)
    paper = PaperForms(solved)
    n_tasks = len(solved.train)
    for k in range(n_tasks):
        up_weighting = float(paper.d_m @ paper.task_if(k)) / n_tasks
        assert solved.tasks[k] == pytest.approx(up_weighting, rel=1e-9)
    for k, i in ((0, 0), (2, 5), (4, 3)):
        removing = float(paper.d_m @ paper.support_if(k, i)) / (n_tasks * solved.n)
        assert solved.support[k, i] == pytest.approx(-removing, rel=1e-9)


def test_editing_by_task_if_predicts_the_retrained_parameters():
    solved = Solved(n_tasks=40, n=20, m=20)
    hessian_ = solved.hessian.shifted(DELTA)(torch.eye(solved.closed.size, dtype=torch.float64))
    removed = [3, 17]
    step = torch.linalg.solve(hessian_, solved.gradients[removed].sum(dim=0)) / len(solved.train)
    edited = (solved.params["theta"] + step).numpy()
    retrained = solved.closed.minimum(dict.fromkeys(removed, (0.0, None, None)))
    before = np.linalg.norm(retrained - solved.params["theta"].numpy())
    assert np.linalg.norm(retrained - edited) < 0.2 * before


def test_scores_do_not_depend_on_the_task_batch():
    solved = Solved()
    reference = weight_derivatives(
        Unrolled(OBJECTIVE, solved.params, solved.train, batching(8)), solved.u
    )
    for size in (1, 3):
        found = weight_derivatives(
            Unrolled(OBJECTIVE, solved.params, solved.train, batching(size)), solved.u
        )
        np.testing.assert_allclose(found, reference, rtol=1e-10, atol=1e-18)
        again = total_gradients(Unrolled(OBJECTIVE, solved.params, solved.train, batching(size)))
        np.testing.assert_allclose(again.gradients, solved.gradients.numpy(), rtol=1e-10)


def test_task_fisher_solves_its_own_dense_system():
    solved = Solved(config=InfluenceConfig(curvature="task-fisher", damping=0.1))
    g = solved.gradients.numpy()
    fisher = solved.m / len(g) * g.T @ g + (DELTA + 0.1) * np.eye(g.shape[1])
    expected = np.linalg.solve(fisher, solved.targets.mean(axis=0))
    np.testing.assert_allclose(solved.u.numpy(), expected, rtol=1e-10)


def test_dot_is_the_product_of_total_gradients():
    solved = Solved(config=InfluenceConfig(method="dot"))
    expected = -solved.gradients.numpy() @ solved.targets.mean(axis=0) / len(solved.train)
    np.testing.assert_allclose(solved.tasks, expected, rtol=1e-12)
    assert solved.adjoint.solution is None


def test_layout_round_trip():
    params = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7.0]), "c": torch.ones(2, 2)}
    layout = Layout.of(params)
    flat = layout.flatten(params)
    assert flat.shape == (layout.size,) == (11,)
    stacked = layout.unflatten(torch.stack([flat, 2 * flat]), params)
    for name, p in params.items():
        assert torch.equal(stacked[name][0], p) and torch.equal(stacked[name][1], 2 * p)
    assert jacrev(lambda v: layout.flatten(layout.unflatten(v, params)))(flat).equal(torch.eye(11))
