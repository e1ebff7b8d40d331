"""What holds of all methods, with every learner."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from metaaudit.config.influence import USED_BY, InfluenceConfig
from metaaudit.methods import METHODS
from tests.methods.small_given import (
    at_batch,
    blocks,
    digit_problem,
    scores,
    small_problem,
)
from tests.methods.small_given import given as given_of

STEPS = {"inner_lr": 0.3, "steps": 2}
LEARNERS = {
    "maml": {"name": "maml", **STEPS},
    "fomaml": {"name": "fomaml", **STEPS},
    "anil": {"name": "anil", **STEPS},
    "meta-sgd": {"name": "meta-sgd", **STEPS},
    "imaml": {"name": "imaml", "inner_lr": 0.3, "steps": 5, "proximity": 1.0},
    "protonet": {"name": "protonet"},
    "ridge": {"name": "ridge"},
    "reptile": {"name": "reptile", **STEPS},
}
FEW_ITERATIONS = {"influence.max_iterations": 5}
DERIVED = ("direct-if", "ekfac-if", "gradient-ascent", "trak", "tracin", "grad-norm")
"""Methods that differentiate in a way of their own."""
SUMS = ("task-if", "dot", "direct-if", "ekfac-if", "trak", "tracin")
"""Methods whose task scores are the sums of the scores of their queries."""
FREE = ("loss", "random")
"""Methods that have the scores of instances at hand."""


def test_the_schema_names_exactly_the_methods() -> None:
    named = get_args(InfluenceConfig.model_fields["method"].annotation)
    assert list(named) == list(METHODS)
    assert {name for methods in USED_BY.values() for name in methods} <= set(METHODS)
    assert set(USED_BY) <= set(InfluenceConfig.model_fields)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_depends_on_the_task_batch(method: str) -> None:
    problem = small_problem({"influence.method": method})
    whole, single = (scores(at_batch(problem, size)) for size in (6, 1))
    for name in ("task_influence", "instance_influence"):
        one, other = getattr(single, name), getattr(whole, name)
        # The direct Hessian is solved for to a relative residual of 1e-4.
        close = {"rtol": 1e-3, "atol": 1e-6} if method == "direct-if" else {"rtol": 1e-8}
        np.testing.assert_allclose(one, other, err_msg=name, **{"atol": 1e-13, **close})


@pytest.mark.parametrize("method", METHODS)
def test_without_instances_the_task_scores_are_the_same(method: str) -> None:
    given = given_of(small_problem({"influence.method": method}))
    both, tasks = (
        METHODS[method](replace(given, by_instance=by_instance)) for by_instance in (True, False)
    )
    np.testing.assert_array_equal(tasks.task_influence, both.task_influence)
    assert np.isfinite(both.instance_influence).all()
    assert method in FREE or np.isnan(tasks.instance_influence).any()
    assert tasks.instance_influence.shape == both.instance_influence.shape


@pytest.mark.parametrize("method", SUMS)
def test_query_scores_of_a_task_add_up_to_its_own(method: str) -> None:
    problem = small_problem({"influence.method": method})
    found = scores(problem)
    _, query = blocks(problem, found.instance_influence)
    np.testing.assert_allclose(query.sum(1), found.task_influence.mean(1), rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("method", DERIVED)
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_is_scored(learner: str, method: str) -> None:
    iterates = FEW_ITERATIONS if method == "direct-if" else {}
    problem = digit_problem({"learner": LEARNERS[learner], "influence.method": method, **iterates})
    found = scores(problem)
    assert found.task_influence.shape == (8, 3)
    assert np.isfinite(found.task_influence).all() and np.isfinite(found.instance_influence).all()
    assert np.ptp(found.task_influence[:, 0]) > 0 and np.ptp(found.instance_influence) > 0
    assert found.solver["method"] == method
    # Reptile's task scores are of a field that does not divide a task.
    if method in SUMS and (learner != "reptile" or method in ("direct-if", "ekfac-if", "trak")):
        queries = [name == "query" for _, name, _ in problem.train.instances()]
        each = found.instance_influence[queries].reshape(8, -1).sum(1)
        np.testing.assert_allclose(each, found.task_influence.mean(1), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_implicit_derivative_is_scored(method: str) -> None:
    chosen = {"influence.derivative": "implicit", "influence.inner": {"inverse": "dense"}}
    problem = small_problem({"influence.method": method, **chosen})
    found = scores(problem)
    assert np.isfinite(found.task_influence).all() and np.isfinite(found.instance_influence).all()
    unrolled = scores(small_problem({"influence.method": method}))
    blind = ("direct-if", "ekfac-if", "mts", "loss", "random")  # which take no part in it
    same = np.allclose(found.task_influence, unrolled.task_influence, rtol=1e-6, atol=1e-12)
    assert same == (method in blind)
