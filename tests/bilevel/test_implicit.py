"""The implicit derivative against differentiating through the solution, and differences of it."""

import numpy as np
import pytest
import torch

from metaaudit.bilevel import Objective, TotalHessian, Unrolled, total_gradients
from metaaudit.learners import IMAML
from tests.bilevel import convex
from tests.bilevel.small_networks import (
    FORMS,
    INVERSES,
    N_TASKS,
    assert_close,
    batching,
    derivatives,
    gaussian,
    implicit,
    ragged_tasks,
    random_tasks,
    relative_errors,
    small_mlp,
)

RHO = 3.0


def solving(steps=45, tolerance=1e-13):
    """A tanh network whose learner solves the proximal inner problem."""
    return Objective(small_mlp(), IMAML(0.3, steps, RHO, tolerance))


@pytest.fixture
def case():
    objective = solving()
    return objective, objective.forward.initial(), random_tasks()


@pytest.mark.parametrize("inverse", ["dense", "cg", "ggn"])
def test_equals_the_derivatives_of_a_closed_form(inverse):
    """The inner loss is quadratic, so that its Gauss-Newton matrix is its Hessian."""
    parts = (convex.OBJECTIVE, {"theta": gaussian(5)}, convex.tasks(6, 12, 6))
    found = implicit(*parts, inverse, rho=convex.RHO)
    expected = derivatives(Unrolled(*parts, convex.batching()), FORMS)
    assert_close(derivatives(found, FORMS), expected, 1e-10)
    assert float(found.stationarity.max()) < 1e-14


def test_equals_unrolling_a_learner_that_has_converged(case):
    forms = ("exact", "ggn")
    expected = derivatives(Unrolled(*case, batching()), forms)
    for inverse in ("dense", "cg"):
        found = implicit(*case, inverse, rho=RHO)
        assert float(found.stationarity.max()) < 1e-11
        # Where theta is off by r^k after k steps, its second derivative is by k^2 r^k.
        assert_close(derivatives(found, forms), expected, 1e-9)


def test_is_another_derivative_where_the_learner_has_not_converged(case):
    _, params, task_set = case
    few = solving(steps=1)
    found = implicit(few, params, task_set, rho=RHO)
    unrolled = Unrolled(few, params, task_set, batching())
    errors = relative_errors(derivatives(found, FORMS), derivatives(unrolled, FORMS))
    assert min(errors.values()) > 1e-3
    assert float(found.stationarity.min()) > 1e-2


@pytest.mark.parametrize("inverse", ["dense", "cg"])
def test_hessian_product_equals_differences_of_total_gradients(case, inverse):
    objective, params, task_set = case
    found = implicit(*case, inverse, rho=RHO)
    layout, step = found.layout, 1e-4
    point, direction = layout.flatten(params), gaussian(layout.size, seed=1)

    def mean_gradient(vector):
        moved = implicit(objective, layout.unflatten(vector, params), task_set, inverse, rho=RHO)
        return total_gradients(moved).gradients.mean(axis=0)

    ends = [mean_gradient(point + sign * step * direction) for sign in (1, -1)]
    difference = torch.from_numpy((ends[0] - ends[1]) / (2 * step))
    # The step's square times a fourth derivative.
    assert_close({"": TotalHessian(found)(direction[None])[0]}, {"": difference}, 1e-6)


@pytest.mark.parametrize("inverse", ["dense", "ggn", "ekfac", "ekfac shared"])
def test_hessian_product_is_symmetric_also_with_an_approximate_inverse(case, inverse):
    found = implicit(*case, inverse, rho=RHO)
    matrix = TotalHessian(found)(torch.eye(found.layout.size, dtype=torch.float64))
    assert_close({"": matrix}, {"": matrix.T}, 1e-11)


@pytest.mark.parametrize("inverse", INVERSES)
def test_some_of_the_tasks_keep_what_is_theirs(case, inverse):
    found = implicit(*case, inverse, rho=RHO)
    picked, rest = [4, 1], [0, 2, 3, 5]
    vectors = gaussian(1, found.layout.size)
    sums = [len(rows) * TotalHessian(found.over(rows))(vectors) for rows in (picked, rest)]
    gradients = total_gradients(found).gradients
    assert_close(
        {"gradients": total_gradients(found.over(picked)).gradients, "exact": sum(sums)},
        {"gradients": gradients[picked], "exact": N_TASKS * TotalHessian(found)(vectors)},
        1e-11,
    )
    assert found.over(picked).stationarity.equal(found.stationarity[picked])


@pytest.mark.parametrize("inverse", INVERSES)
def test_nothing_depends_on_the_task_batch(case, inverse):
    objective, params, task_set = case
    parts = objective, params, task_set.select([0, 1, 2]), inverse
    expected = derivatives(implicit(*parts, rho=RHO, batches=batching(3)))
    found = derivatives(implicit(*parts, rho=RHO, batches=batching(2)))
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("inverse", ["dense", "ggn", "ekfac"])
def test_tasks_of_different_sizes(case, inverse):
    objective, params, _ = case
    task_set = ragged_tasks()
    together = implicit(objective, params, task_set, inverse, rho=RHO)
    for row in range(len(task_set)):
        alone = implicit(objective, params, task_set.select([row]), inverse, rho=RHO)
        assert_close(derivatives(together.over([row])), derivatives(alone), 1e-11)


@pytest.mark.parametrize("inverse", INVERSES)
def test_known_total_gradients_change_nothing(case, inverse):
    found = implicit(*case, inverse, rho=RHO)
    expected = derivatives(found)
    known = found.with_gradients(torch.from_numpy(expected["gradients"]))
    assert_close(derivatives(known), expected, 1e-11)
    vector, picked = gaussian(1, found.layout.size), [4, 1]
    products = [TotalHessian(one.over(picked))(vector) for one in (known, found)]
    assert_close({"": products[0]}, {"": products[1]}, 1e-11)


def test_known_total_gradients_save_a_solve(case):
    found = implicit(*case, "cg", rho=RHO)
    gradients = torch.from_numpy(total_gradients(found).gradients)

    def solves(adaptation):
        before = found.inverse.report.solves
        TotalHessian(adaptation)(gaussian(1, found.layout.size))
        return found.inverse.report.solves - before

    known = found.with_gradients(gradients)
    assert (solves(found), solves(known)) == (3 * N_TASKS, 2 * N_TASKS)
    assert (solves(found.over([1, 4])), solves(known.over([1, 4]))) == (6, 4)


@pytest.mark.parametrize("inverse", INVERSES)
def test_single_precision_gives_the_same_to_its_own(case, inverse):
    _, params, task_set = case
    # The step at which the learner stops depends on the precision unless both are solved.
    expected = derivatives(implicit(*case, inverse, rho=RHO))
    objective = Objective(small_mlp(), IMAML(0.3, 45, RHO, 1e-6))
    objective.forward.to(torch.device("cpu"), torch.float32)
    single = {name: p.float() for name, p in params.items()}
    found = implicit(
        *(objective, single, task_set, inverse),
        **{"rho": RHO, "batches": batching(dtype=torch.float32), "tolerance": 1e-6},
    )
    assert total_gradients(found).gradients.dtype == np.float32
    assert_close(derivatives(found), expected, 1e-4)
