"""Every learner: influence against where retraining really ends, on tiny networks in float64.

The reference knows nothing of adjoints: it solves for the meta-parameters at which training rests,
by Newton's method, with a weight a little larger and a little smaller, and compares the evaluation
losses there.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.func import jacrev, vmap

from metaaudit.bilevel import (
    AdjointSolver,
    FirstOrder,
    Objective,
    Reptile,
    TaskTensors,
    TotalHessian,
    Unrolled,
    outer_bases,
    outer_factors,
    total_gradients,
    weight_derivatives,
)
from metaaudit.config.influence import InfluenceConfig
from metaaudit.curvature import fisher_terms
from metaaudit.influence import instance_influence, task_influence
from metaaudit.inputs.task_set import SETS
from metaaudit.learners import ANIL, MAML, MetaSGD, ProtoNet, Ridge
from metaaudit.models import Head, Layout
from tests.bilevel.small_networks import (
    FEATURES,
    N_TASKS,
    M,
    N,
    batching,
    layers_of,
    random_tasks,
    small_mlp,
)

RATE, STEPS, DELTA, TRAINING = 0.3, 2, 0.1, 300
LEARNERS = ("maml", "anil", "meta-sgd", "protonet", "ridge", "fomaml", "reptile")
FIELDS = {"fomaml": FirstOrder, "reptile": lambda *parts: Reptile(*parts, RATE * STEPS)}


def problem(name):
    """Objective, initial meta-parameters, training tasks and evaluation tasks."""
    model = small_mlp()
    head = Head.of(model, (FEATURES,))
    learner = {
        "anil": ANIL(RATE, STEPS, head),
        "meta-sgd": MetaSGD(RATE, STEPS),
        "protonet": ProtoNet(head),
        "ridge": Ridge(0.5, 2.0, head),
    }.get(name, MAML(RATE, STEPS))
    params = learner.meta_parameters(model.initial())
    return Objective(model, learner), params, learnable(), learnable(n_tasks=3, seed=5)


def learnable(**options):
    """Tasks with something to learn: the two classes of each lie apart."""
    task_set = random_tasks(**options)
    for row, task in enumerate(task_set.tasks):
        apart = np.random.default_rng(row).standard_normal(FEATURES)
        for part in SETS:
            signs = 2 * task.labels(part) - 1
            task_set.pool.pixels[task.rows(part)] += np.outer(signs, apart).astype(np.float32)
    return task_set


def field(name, objective, params, w, v, data):
    """What a learner descends along, for one task, from its definition."""
    if name == "reptile":
        x = torch.cat([data.support_x, data.query_x])
        y = torch.cat([data.support_y, data.query_y])
        theta = objective.adapt(params, torch.cat([w, v]), TaskTensors(x, y, x, y))
        return {key: (p - theta[key]) / (RATE * STEPS) for key, p in params.items()}

    def outer(theta):
        return (v * objective.losses(theta, data.query_x, data.query_y)).mean()

    if name == "fomaml":
        return torch.func.grad(outer)(objective.adapt(params, w, data))
    return torch.func.grad(lambda p: outer(objective.adapt(p, w, data)))(params)


class Retraining:
    """Where training rests, as a function of the weights of tasks and instances."""

    def __init__(self, name):
        self.name = name
        self.objective, self.start, self.train, self.evaluation = problem(name)
        self.layout = Layout.of(self.start)
        (batch,) = batching().batches(self.train)
        self.data = batch.data

    def force(self, point, a, w, v):
        params = self.layout.unflatten(point, self.start)
        each = vmap(
            lambda w, v, data: self.layout.flatten(
                field(self.name, self.objective, params, w, v, data)
            )
        )(w, v, self.data)
        return (a[:, None] * each).mean(0) + DELTA * point

    def rest(self, a, w, v, point=None):
        if point is None:  # trained first: Newton's method alone would stop at a saddle
            point = self.layout.flatten(self.start)
            for _ in range(TRAINING):
                point = point - 0.5 * self.force(point, a, w, v)
        for _ in range(60):
            force = self.force(point, a, w, v)
            if float(force.norm()) < 1e-13:
                break
            jacobian = jacrev(lambda x: self.force(x, a, w, v))(point)
            step = torch.linalg.solve(jacobian, force)
            point = point - step * min(1.0, 0.5 / float(step.norm()))
        assert float(self.force(point, a, w, v).norm()) < 1e-11
        return point

    def evaluation_loss(self, point):
        params = self.layout.unflatten(point, self.start)
        (batch,) = batching().batches(self.evaluation)

        def loss(data):
            theta = self.objective.adapt(params, torch.ones(N, dtype=torch.float64), data)
            return self.objective.query_loss(theta, data)

        return float(vmap(loss)(batch.data).mean())

    def weights(self):
        ones = torch.ones(N_TASKS, N + M, dtype=torch.float64)
        return ones[:, 0].clone(), ones[:, :N].clone(), ones[:, N:].clone()

    def difference(self, part, index, resting, step=1e-4):
        """``dM / d omega`` for one weight."""
        losses = []
        for sign in (1, -1):
            weights = self.weights()
            weights[part][index] += sign * step
            losses.append(self.evaluation_loss(self.rest(*weights, resting)))
        return (losses[0] - losses[1]) / (2 * step)


@functools.cache
def rested(name):
    """A learner's problem, and where training rests with unit weights."""
    case = Retraining(name)
    return case, case.rest(*case.weights())


def adaptation(name, objective, params, task_set, size=N_TASKS):
    return FIELDS.get(name, Unrolled)(objective, params, task_set, batching(size))


def influences(case, resting, solver="auto"):
    """Influence of every task and of every instance at the resting point."""
    name, params = case.name, case.layout.unflatten(resting, case.start)
    train = adaptation(name, case.objective, params, case.train)
    held_out = Unrolled(case.objective, params, case.evaluation, batching())
    gradients = torch.from_numpy(total_gradients(train).gradients)
    target = torch.from_numpy(total_gradients(held_out).gradients).mean(0, keepdim=True)
    form = "jacobian" if name in FIELDS else "exact"
    config = InfluenceConfig(
        curvature=form, damping=0.0, tolerance=1e-12, max_iterations=300, solver=solver
    )
    hessian = TotalHessian(train, form)
    adjoint = AdjointSolver(config, hessian, gradients, DELTA).solve(target)
    assert adjoint.solution.converged, adjoint.warnings
    tasks = task_influence(gradients, adjoint.direction)[:, 0]
    derivatives = weight_derivatives(train, adjoint.mean_direction)
    instances = instance_influence(derivatives, N_TASKS)
    return tasks, instances.reshape(N_TASKS, N + M)


@pytest.mark.parametrize("name", LEARNERS)
def test_influence_is_the_derivative_of_retraining(name):
    case, resting = rested(name)
    tasks, instances = influences(case, resting)
    # Central differences: the step's square and the rounding of the losses over the step.
    close = {"rel": 1e-4, "abs": 1e-8}
    for k in (0, 3):
        assert tasks[k] == pytest.approx(case.difference(0, k, resting), **close)
        for i in range(2):
            expected = case.difference(1, (k, i), resting)
            assert instances[k, i] == pytest.approx(expected, **close), "support"
            expected = case.difference(2, (k, i), resting)
            assert instances[k, N + i] == pytest.approx(expected, **close), "query"
    assert max(abs(tasks)) > 1e-2


@pytest.mark.parametrize("name", LEARNERS)
def test_training_descends_along_the_definition(name):
    objective, params, train, _ = problem(name)
    found = total_gradients(adaptation(name, objective, params, train)).gradients
    (batch,) = batching().batches(train)
    ones = torch.ones(N_TASKS, N + M, dtype=torch.float64)
    expected = vmap(lambda w, v, data: field(name, objective, params, w, v, data))(
        ones[:, :N], ones[:, N:], batch.data
    )
    expected = Layout.of(params).flatten(expected)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", FIELDS)
def test_the_jacobian_is_not_symmetric_and_is_transposed(name):
    case = Retraining(name)
    point = case.layout.flatten(case.start)
    jacobian = jacrev(lambda x: case.force(x, *case.weights()))(point)
    train = adaptation(name, case.objective, case.start, case.train)
    operator = TotalHessian(train, "jacobian", shift=DELTA)
    eye = torch.eye(len(point), dtype=torch.float64)
    # Row i of the operator's result is J^T e_i, that is row i of J.
    torch.testing.assert_close(operator(eye), jacobian, rtol=1e-9, atol=1e-12)
    if name == "fomaml":
        assert float((jacobian - jacobian.T).norm() / jacobian.norm()) > 1e-2


@pytest.mark.parametrize("name", FIELDS)
def test_a_dense_solve_gives_the_same(name):
    case, resting = rested(name)
    for one, other in zip(
        influences(case, resting), influences(case, resting, "dense"), strict=True
    ):
        assert one == pytest.approx(other, rel=1e-8, abs=1e-13)


@pytest.mark.parametrize("name", LEARNERS)
def test_nothing_depends_on_the_task_batch(name):
    objective, params, train, _ = problem(name)
    u = torch.linspace(-1, 1, Layout.of(params).size, dtype=torch.float64)
    whole, single = (adaptation(name, objective, params, train, size) for size in (N_TASKS, 1))
    for one in (
        lambda a: total_gradients(a).gradients,
        lambda a: weight_derivatives(a, u),
        lambda a: TotalHessian(a, "jacobian")(u[None]).numpy(),
    ):
        assert one(single) == pytest.approx(one(whole), rel=1e-9, abs=1e-13)


def test_query_influences_of_a_task_add_up_to_its_own():
    for name in LEARNERS:
        if name == "reptile":  # which does not divide a task
            continue
        tasks, instances = influences(*rested(name))
        assert instances[:, N:].sum(1) == pytest.approx(tasks, rel=1e-9, abs=1e-14)


def test_losses_of_reptile_are_of_queries_that_were_not_adapted_to():
    objective, params, train, _ = problem("reptile")
    found = total_gradients(adaptation("reptile", objective, params, train))
    expected = total_gradients(Unrolled(objective, params, train, batching()))
    assert found.losses == pytest.approx(expected.losses)
    assert found.gradients != pytest.approx(expected.gradients)


@pytest.mark.parametrize("name", ["meta-sgd", "ridge"])
def test_meta_parameters_of_no_layer_have_their_own_diagonal(name):
    objective, params, train, _ = problem(name)
    fitted = adaptation(name, objective, params, train)
    gradients = torch.from_numpy(total_gradients(fitted).gradients)
    network = layers_of(objective.forward, train).over(params)
    assert network.layout == fitted.layout
    terms = fisher_terms(objective.mean_loss, "true")
    bases = outer_bases(fitted, network, terms)
    factors = outer_factors(network, bases, gradients, train.query_sizes)
    eye = torch.eye(fitted.layout.size, dtype=torch.float64)
    matrix = factors.apply(factors.eigenvalues, eye)
    own = [key for key in params if key not in dict(objective.forward.module.named_parameters())]
    start = fitted.layout.size - sum(params[key].numel() for key in own)
    moments = M * gradients[:, start:].square().mean(0)
    torch.testing.assert_close(matrix[start:, start:], torch.diag(moments))
    assert float(matrix[:start, start:].abs().max()) == 0.0
    trace = M * gradients[:, :start].square().sum() / N_TASKS
    torch.testing.assert_close(matrix[:start, :start].trace(), trace)
