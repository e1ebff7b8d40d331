"""``gradient-ascent``, ``tracin``, ``loss``, ``grad-norm`` and ``random`` by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import grad

from metaaudit.errors import IncompleteError
from metaaudit.methods.tracin import learning_rate
from tests.bilevel.small_networks import task_tensors, unit_weights
from tests.methods.small_given import (
    Dense,
    Unchanged,
    blocks,
    digit_problem,
    scores,
    small_problem,
)

RATE = 0.01


def named(method, **changes):
    return small_problem({"influence.method": method, "training.lr": RATE, **changes})


def task_loss(dense, task_set, k, point):
    data = task_tensors(task_set, k)
    params = dense.layout.unflatten(point, dense.params)
    return dense.problem.objective.task_loss(params, *unit_weights(data), data)


def total_gradients(dense, task_set):
    return torch.stack(
        [
            grad(lambda x, k=k: task_loss(dense, task_set, k, x))(dense.point)
            for k in range(len(task_set))
        ]
    )


def test_gradient_ascent_is_the_drop_by_one_step():
    problem = named("gradient-ascent")
    found, dense = scores(problem), Dense(problem)
    gradients = total_gradients(dense, problem.train)
    for k in range(len(problem.train)):
        for t in range(len(problem.evaluation)):
            before, after = (
                float(task_loss(dense, problem.evaluation, t, dense.point + step * gradients[k]))
                for step in (0.0, RATE)
            )
            assert found.task_influence[k, t] == pytest.approx(before - after, rel=1e-9, abs=1e-14)
    assert found.solver["solver"] is None and found.solver["curvature"] is None


def test_instances_of_gradient_ascent_are_its_first_order():
    problem = named("gradient-ascent")
    found, dense = scores(problem), Dense(problem)
    target = total_gradients(dense, problem.evaluation).mean(0)
    support, query = blocks(problem, found.instance_influence)
    first_order = -RATE * total_gradients(dense, problem.train) @ target
    np.testing.assert_allclose(query.sum(1), first_order.numpy(), rtol=1e-9)
    for k in range(len(problem.train)):
        expected = -RATE * dense.weight_derivative(k, target)
        np.testing.assert_allclose(support[k], expected.numpy(), rtol=1e-9, atol=1e-15)
    # The step is small: what a task does to the mean target is close to its first order.
    tasks = found.task_influence.mean(1)
    np.testing.assert_allclose(tasks, first_order.numpy(), atol=0.05 * np.abs(tasks).max())


def test_gradient_ascent_of_a_mean_is_the_mean():
    each = scores(named("gradient-ascent")).task_influence
    mean = scores(named("gradient-ascent", **{"influence.targets": "mean"})).task_influence
    np.testing.assert_allclose(mean[:, 0], each.mean(1), rtol=1e-9)


def test_a_step_that_overflows_is_refused():
    with pytest.raises(IncompleteError, match=r"not finite; lower training\.lr"):
        scores(digit_problem({"influence.method": "gradient-ascent", "training.lr": 1e200}))


@pytest.mark.parametrize(("metadata", "rate"), [({}, None), ({"lr": "0.25"}, 0.25)])
def test_tracin_is_the_products_at_the_learning_rate(metadata, rate):
    problem = named("tracin")
    found, dense = scores(problem, metadata=metadata), Dense(problem)
    own, targets = (total_gradients(dense, tasks) for tasks in (problem.train, problem.evaluation))
    expected = -(rate or 1.0) * own @ targets.T
    np.testing.assert_allclose(found.task_influence, expected.numpy(), rtol=1e-9, atol=1e-15)
    support, query = blocks(problem, found.instance_influence)
    np.testing.assert_allclose(query.sum(1), found.task_influence.mean(1), rtol=1e-9)
    for k in range(len(problem.train)):
        derivative = dense.weight_derivative(k, targets.mean(0))
        expected = -(rate or 1.0) * derivative.numpy()
        np.testing.assert_allclose(support[k], expected, rtol=1e-9, atol=1e-15)
    assert found.solver["learning_rate"] == rate


def test_tracin_of_a_model_that_is_trained_once_is_that_of_its_paper():
    """A task is a data point then: ``eta grad loss(z) . grad loss(z')``, positive = helpful."""
    changes = {"influence.method": "tracin"}
    problem = small_problem(changes, learner=Unchanged(), n=2, m=1, n_tasks=8)
    found, dense = scores(problem, metadata={"lr": "0.5"}), Dense(problem)

    def gradients(task_set):
        rows = [
            grad(lambda x, k=k: dense.losses(x, task_set, k, "query").sum())(dense.point)
            for k in range(len(task_set))
        ]
        return torch.stack(rows)

    expected = 0.5 * gradients(problem.train) @ gradients(problem.evaluation).T
    np.testing.assert_allclose(-found.task_influence, expected.numpy(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("text", ["", "nan", "inf", "0", "-1", "fast"])
def test_a_learning_rate_that_is_none_is_unknown(text):
    assert learning_rate({"lr": text}) is None


def test_losses_are_those_after_adaptation_whatever_the_target():
    problem = named("loss")
    found, dense = scores(problem), Dense(problem)
    for k in range(len(problem.train)):
        theta = dense.theta(problem.train, k)
        parts = [dense.losses(theta, problem.train, k, part) for part in ("support", "query")]
        assert found.task_influence[k] == pytest.approx([float(parts[1].mean())] * 3, rel=1e-12)
        support, query = blocks(problem, found.instance_influence)
        np.testing.assert_allclose(support[k], parts[0].numpy(), rtol=1e-12)
        np.testing.assert_allclose(query[k], parts[1].numpy(), rtol=1e-12)


def test_norms_are_those_of_the_gradients():
    problem = named("grad-norm")
    found, dense = scores(problem), Dense(problem)
    norms = total_gradients(dense, problem.train).norm(dim=1).numpy()
    np.testing.assert_allclose(found.task_influence, np.tile(norms[:, None], 3), rtol=1e-9)
    each = [dense.instance_gradients(k).norm(dim=1) for k in range(len(problem.train))]
    np.testing.assert_allclose(found.instance_influence, torch.cat(each).numpy(), rtol=1e-9)


def test_random_scores_depend_on_the_seed_alone():
    one, same, other = (scores(named("random", **{"influence.seed": seed})) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.task_influence, same.task_influence)
    np.testing.assert_array_equal(one.instance_influence, same.instance_influence)
    assert np.ptp(one.task_influence, axis=1).max() == 0 and np.ptp(one.task_influence) > 0
    assert (one.task_influence != other.task_influence).all()


@pytest.mark.parametrize("method", ["loss", "grad-norm", "random", "gradient-ascent"])
def test_the_mean_target_is_one_column(method):
    found = scores(named(method, **{"influence.targets": "mean"}))
    assert found.task_influence.shape == (6, 1)
