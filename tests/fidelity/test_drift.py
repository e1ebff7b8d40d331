"""Two-stage influence of training instances: each form against differences of what it freezes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, vmap

from metaaudit.bilevel import Objective, Unrolled, weight_derivatives
from metaaudit.config.evaluate import DriftConfig
from metaaudit.config.influence import InnerConfig
from metaaudit.config.learner import ImamlConfig
from metaaudit.errors import ConfigError
from metaaudit.fidelity.experiments.drift import FORMS, check, chosen_instances, run, two_stage
from metaaudit.influence import instance_influence
from metaaudit.learners import IMAML
from metaaudit.methods import METHODS, Given, adjoint_solver
from metaaudit.models import Layout
from metaaudit.stages import Stages
from tests.bilevel.small_networks import (
    INVERSES,
    M,
    N,
    batching,
    gaussian,
    implicit,
    random_tasks,
    small_mlp,
    task_tensors,
)
from tests.fidelity.ablation_cases import bench, trained

RHO = 3.0
ALL = 3


@pytest.fixture(scope="module")
def solving():
    """A learner that solves its inner problem, its meta-parameters and tasks."""
    objective = Objective(small_mlp(), IMAML(0.3, 45, RHO, 1e-13))
    return objective, objective.forward.initial(), random_tasks(n_tasks=2)


def terms(found, direction):
    """``[3, n_tasks, n]``."""
    (batch,) = found.batches()
    return two_stage(found, batch, found.layout.unflatten(direction, found.params))


@pytest.mark.parametrize("inverse", INVERSES)
def test_the_full_form_is_the_implicit_derivative(solving, inverse):
    found = implicit(*solving, inverse, rho=RHO)
    direction = gaussian(found.layout.size)
    expected = weight_derivatives(found, direction).reshape(-1, N + M)[:, :N]
    # P is the change on removal, and a derivative by a weight that on adding.
    full = -terms(found, direction).sum(0)
    np.testing.assert_allclose(full.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", FORMS.values(), ids=FORMS)
def test_each_form_is_the_difference_of_what_it_does_not_freeze(solving, count):
    objective, params, task_set = solving
    layout = Layout.of(params)
    point, direction, step = layout.flatten(params), gaussian(layout.size, seed=1), 1e-4
    found = terms(implicit(*solving, "dense", rho=RHO), direction)[:count].sum(0)
    for k in range(len(task_set)):
        data = task_tensors(task_set, k)

        def loss(vector, x, y, params=params):
            return objective.losses(layout.unflatten(vector, params), x, y)

        def support_loss(vector, data=data, loss=loss):
            return loss(vector, data.support_x, data.support_y).mean()

        def parts(vector, data=data, loss=loss, support_loss=support_loss):
            """The outer gradient, each instance's gradient and the inner Hessian."""
            theta = layout.flatten(
                objective.adapt(layout.unflatten(vector, params), torch.ones(N).double(), data)
            )
            outer = grad(lambda v: loss(v, data.query_x, data.query_y).mean())(theta)
            own = vmap(lambda x, y: grad(lambda v: loss(v, x[None], y[None])[0])(theta))(
                data.support_x, data.support_y
            )
            return outer, own, hessian(support_loss)(theta) + RHO * torch.eye(layout.size)

        frozen = parts(point)

        def removed(vector, frozen=frozen, parts=parts):
            """``P`` of every instance, what a form freezes taken at the point."""
            moving = parts(vector)
            outer, own, inner = (
                (moving if place < count else frozen)[place] for place in range(ALL)
            )
            return (own @ torch.linalg.solve(inner, outer)) / N

        ends = [removed(point + sign * step * direction) for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * step)
        # The step's square times a third derivative.
        torch.testing.assert_close(found[k], difference, rtol=1e-5, atol=1e-8)


def test_shortcuts_are_off_where_the_full_form_is_not(solving):
    objective, params, task_set = solving
    found = implicit(*solving, "dense", rho=RHO)
    direction = gaussian(found.layout.size, seed=2)
    unrolled = Unrolled(objective, params, task_set, batching())
    exact = -weight_derivatives(unrolled, direction).reshape(-1, N + M)[:, :N]
    forms = terms(found, direction).cumsum(0).numpy()
    errors = [np.linalg.norm(one - exact) / np.linalg.norm(exact) for one in forms]
    assert errors[2] < 1e-8
    assert min(errors[:2]) > 0.02


def test_chosen_instances_are_support_instances_of_as_few_tasks_as_hold_them():
    task_set = random_tasks(n_tasks=6)
    rows, kept = chosen_instances(task_set, 2 * N + 1, seed=0)
    assert len(rows) == len(set(rows)) == 3
    places = list(task_set.select(rows).instances())
    assert [places[i][1] for i in kept] == ["support"] * (2 * N + 1)
    again, _ = chosen_instances(task_set, 2 * N + 1, seed=0)
    other, _ = chosen_instances(task_set, 2 * N + 1, seed=1)
    assert rows == again != other
    everything, all_support = chosen_instances(task_set, 1000, seed=0)
    assert len(everything) == 6
    assert len(all_support) == 6 * N


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("drift"))


def asked(**changes):
    return DriftConfig(
        kind="drift", **{"steps": [1, 3], "instances": 13, "inner": {"inverse": "dense"}} | changes
    )


def by_name(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


def test_drift_of_a_trained_learner(case):
    result = run(bench(case), asked())
    (table,) = result.tables
    assert by_name(table, "form") == 2 * list(FORMS)
    assert by_name(table, "inner steps") == [1] * 3 + [3] * 3
    assert all(0 < value < 5 for value in by_name(table, "relative error"))
    shortcut = by_name(table, "error against full two stages")
    assert shortcut[2] == shortcut[5] == 0
    assert min(shortcut[0], shortcut[1], shortcut[3], shortcut[4]) > 0
    assert result.details["rho"] == {"1": pytest.approx(1 / 0.3), "3": pytest.approx(1 / 0.9)}
    assert {figure.name for figure in result.figures} == {"drift-error", "drift-correlation"}
    assert all(series.x == (1, 3) for figure in result.figures for series in figure.series)


def test_errors_are_those_of_what_the_audit_itself_computes(case):
    """The scores of a run with 3 steps: exactly, and by the implicit derivative along one u."""
    work = bench(case)
    rows, kept = chosen_instances(work.problem.train, 13, 0)
    three = replace(
        work.problem,
        objective=work.problem.with_steps(3),
        config=work.config.model_copy(
            update={"learner": work.config.learner.model_copy(update={"steps": 3})}
        ),
    )
    given = Given.of(Stages(three, work.weights[0], work.cache, work.messages, None))
    exact = METHODS["task-if"](given).instance_influence
    starts = np.cumsum([0] + [sum(task.shape) for task in three.train.tasks])
    places = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in rows])
    solver, _ = adjoint_solver(given.stages, given.train, given.gradients)
    direction = solver.solve(given.targets).mean_direction
    two = implicit(three.objective, work.weights[0].params, three.train, rho=1 / 0.9)
    derivatives = weight_derivatives(two, direction)
    approximate = instance_influence(derivatives, len(three.train))
    chosen = [values[places][kept] for values in (approximate, exact)]
    expected = np.linalg.norm(chosen[0] - chosen[1]) / np.linalg.norm(chosen[1])
    (table,) = run(work, asked(steps=[3])).tables
    assert by_name(table, "relative error")[2] == pytest.approx(expected, rel=1e-6)
    assert by_name(table, "correlation")[2] == pytest.approx(np.corrcoef(*chosen)[0, 1], rel=1e-6)


def test_a_proximal_learner_drifts_from_the_full_form_no_more_once_it_has_converged(tmp_path: Path):
    learner = {"name": "imaml", "inner_lr": 0.3, "steps": 15, "proximity": 2.0, "tolerance": 1e-9}
    work = bench(trained(tmp_path, {"learner": learner, "training.epochs": 1}))
    (table,) = run(work, asked(steps=[1, 15])).tables
    errors = by_name(table, "relative error")
    assert errors[2] > 0.05
    assert errors[5] < 1e-3
    assert min(errors[3:5]) > 10 * errors[5]
    left = by_name(table, "inner gradient left")
    assert left[5] < 1e-3 < left[2]


def test_the_inner_inverse_is_the_one_asked_for(case):
    (dense,), (gauss,) = (
        run(bench(case), asked(steps=[3], inner=InnerConfig(inverse=inverse))).tables
        for inverse in ("dense", "ggn")
    )
    assert by_name(dense, "relative error") != by_name(gauss, "relative error")


def test_learners_without_an_inner_problem_are_refused(case):
    work = bench(case)
    anil = work.config.learner.model_copy(update={"name": "anil"})
    config = work.config.model_copy(update={"learner": anil})
    with pytest.raises(ConfigError, match="drift is not for anil; expected maml or imaml"):
        run(replace(work, problem=replace(work.problem, config=config)), asked())


def test_another_pull_than_that_of_imaml_is_refused(case):
    work = bench(case)
    imaml = ImamlConfig(name="imaml", inner_lr=0.3, steps=3, proximity=1.0)
    config = work.config.model_copy(update={"learner": imaml})
    problem = replace(work.problem, config=config)
    check(problem, asked())
    with pytest.raises(ConfigError, match=r"drift: inner\.proximity: is that of the learner imaml"):
        check(problem, asked(inner=InnerConfig(proximity=2.0)))
