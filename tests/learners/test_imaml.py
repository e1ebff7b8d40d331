"""iMAML's inner solver: how well it solves, when it stops, and what it can't be upset by."""

import pytest
import torch
from torch.func import grad, vmap

from metaaudit.bilevel import Objective
from metaaudit.config.learner import ImamlConfig
from metaaudit.learners import IMAML, build_learner
from metaaudit.models import Layout
from tests.bilevel import convex
from tests.bilevel.small_networks import (
    N_TASKS,
    N,
    assert_close,
    batching,
    gaussian,
    random_tasks,
    small_mlp,
)

RHO = 3.0


def adapted(learner, *, weights=None, dtype=torch.float64):
    """Adapted parameters of all tasks, computed at once, and what they were computed from."""
    model = small_mlp().to(torch.device("cpu"), dtype)
    objective, params = Objective(model, learner), model.initial()
    (batch,) = batching(dtype=dtype).batches(random_tasks())
    weights = torch.ones(N_TASKS, N, dtype=dtype) if weights is None else weights
    theta = vmap(objective.adapt, in_dims=(None, 0, 0))(params, weights, batch.data)
    return theta, (objective, params, weights, batch.data)


def relative_gradients(theta, problem, rho=RHO):
    """``[n_tasks]``, norms at the adapted parameters over those at the meta-parameters."""
    objective, params, weights, data = problem

    def inner(theta, weights, data):
        losses = objective.losses(theta, data.support_x, data.support_y)
        pull = sum(((theta[name] - p) ** 2).sum() for name, p in params.items())
        return (weights * losses).mean() + rho / 2 * pull

    layout, slope = Layout.of(params), vmap(grad(inner))
    start = {name: p.expand_as(theta[name]) for name, p in params.items()}
    ends = (layout.flatten(slope(at, weights, data)).norm(dim=1) for at in (theta, start))
    left, first = ends
    return left / first


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_solves_every_task_to_the_tolerance(tolerance):
    found = relative_gradients(*adapted(IMAML(0.3, 60, RHO, tolerance)))
    assert float(found.max()) <= tolerance * (1 + 1e-6)
    # And no further: the tasks stop one by one.
    assert float(found.min()) > 1e-3 * tolerance


def test_stands_still_once_it_is_solved():
    short, long = (adapted(IMAML(0.3, steps, RHO, 1e-6))[0] for steps in (40, 80))
    assert all(torch.equal(short[name], long[name]) for name in short)


def test_too_few_steps_leave_it_unsolved():
    found = relative_gradients(*adapted(IMAML(0.3, 2, RHO, 1e-6)))
    assert float(found.min()) > 1e-3


def test_one_step_is_a_gradient_step():
    theta, (objective, params, _, data) = adapted(IMAML(0.1, 1, RHO, 1e-6))
    slope = vmap(grad(objective.support_loss), in_dims=(None, 0))(params, data)
    assert_close(theta, {name: params[name] - 0.1 * g for name, g in slope.items()}, 1e-14)


@pytest.mark.parametrize("inner_lr", [1.0, 30.0, 1e6])
def test_a_rate_that_is_too_large_is_lowered(inner_lr):
    # A plain step at such a rate makes the gradient larger.
    assert inner_lr > 2 / RHO
    found = relative_gradients(*adapted(IMAML(inner_lr, 100, RHO, 1e-6)))
    assert float(found.max()) <= 1e-6 * (1 + 1e-6)


@pytest.mark.parametrize("inner_lr", [0.3, 10.0])
def test_single_precision_reaches_the_default_tolerance(inner_lr):
    tolerance = ImamlConfig.model_fields["tolerance"].default
    theta, problem = adapted(IMAML(inner_lr, 60, RHO, tolerance), dtype=torch.float32)
    found = relative_gradients(theta, problem)
    assert theta["0.weight"].dtype == torch.float32
    assert float(found.max()) <= 1.01 * tolerance


def test_a_weight_of_zero_removes_an_instance():
    weights = torch.ones(N_TASKS, N, dtype=torch.float64)
    weights[:, 1] = 0.0
    learner = IMAML(0.3, 60, RHO, 1e-12)
    theta, (objective, params, _, data) = adapted(learner, weights=weights)
    without = [0, 2, 3]  # n stays as it is: their weights are 1 of N, not of N - 1
    fewer = data._replace(
        support_x=data.support_x[:, without], support_y=data.support_y[:, without]
    )
    scaled = torch.full((N_TASKS, N - 1), (N - 1) / N, dtype=torch.float64)
    expected = vmap(objective.adapt, in_dims=(None, 0, 0))(params, scaled, fewer)
    assert_close(theta, expected, 1e-10)


def test_equals_the_closed_form_of_a_ridge_regression():
    objective = Objective(convex.forward, IMAML(0.2, 500, convex.RHO, 1e-12), convex.square_loss)
    (batch,) = convex.batching().batches(convex.tasks(4, 12, 6))
    params, weights = {"theta": gaussian(5)}, gaussian(4, 12, seed=1).abs()
    theta, expected = (
        vmap(one.adapt, in_dims=(None, 0, 0))(params, weights, batch.data)
        for one in (objective, convex.OBJECTIVE)
    )
    # The gradient's tolerance times the condition number of the inner Hessian, below 100.
    assert_close(theta, expected, 1e-10)


def test_built_from_a_configuration():
    config = ImamlConfig(name="imaml", inner_lr=0.5, steps=7, proximity=2.0, tolerance=0.1)
    assert build_learner(config, small_mlp(), (3,)) == IMAML(0.5, 7, 2.0, 0.1)
