"""``direct-if`` and ``ekfac-if`` against dense algebra with the partial derivatives alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metaaudit.learners import ProtoNet
from metaaudit.models import Head
from tests.bilevel.small_networks import (
    FEATURES,
    M,
    N,
    by_layer,
    fisher_gradients,
    kronecker_basis,
    layer_pass,
    task_tensors,
)
from tests.methods.small_given import DELTA, EXACTLY, Dense, blocks, scores, small_problem

DAMPING = 1.5


def direct(**changes):
    return small_problem(
        {"influence.method": "direct-if", "influence.damping": DAMPING, **EXACTLY, **changes}
    )


def expected(problem, matrix):
    """Task and instance influences with a dense Hessian, by the definition."""
    dense, train, held_out = Dense(problem), problem.train, problem.evaluation
    targets = torch.stack([dense.partial_gradient(held_out, t) for t in range(len(held_out))])
    own = torch.stack([dense.partial_gradient(train, k) for k in range(len(train))])
    shifted = matrix + (DELTA + DAMPING) * torch.eye(len(matrix), dtype=torch.float64)
    u = torch.linalg.solve(shifted, targets.T).T
    tasks = -(own @ u.T) / len(train)
    sizes = torch.tensor([N] * N + [M] * M)
    instances = torch.stack(
        [
            -(dense.instance_gradients(k) @ u.mean(0)) / (len(train) * sizes)
            for k in range(len(train))
        ]
    )
    return tasks.numpy(), instances.flatten().numpy()


@pytest.mark.parametrize("solver", ["auto", "cg", "neumann", "dense"])
def test_direct_influence_is_that_of_dense_algebra(solver):
    problem = direct(**{"influence.solver": solver})
    found = scores(problem)
    tasks, instances = expected(problem, Dense(problem).partial_hessian())
    np.testing.assert_allclose(found.task_influence, tasks, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found.instance_influence, instances, rtol=1e-8, atol=1e-12)
    assert np.abs(tasks).max() > 1e-3
    assert found.solver["curvature"] == "partial-hessian" and found.solver["derivative"] is None
    assert found.solver["solver"] == {"auto": "cg"}.get(solver, solver)


def test_a_preconditioner_is_of_the_pooled_queries_and_changes_no_score():
    plain, by_ekfac = (
        scores(direct(**{"influence.preconditioner": name})) for name in ("none", "ekfac")
    )
    np.testing.assert_allclose(by_ekfac.task_influence, plain.task_influence, rtol=1e-8)
    histories = [one.solver["residual_history"] for one in (plain, by_ekfac)]
    assert histories[0] != histories[1]


def test_negative_curvature_raises_the_damping_and_is_told():
    found = scores(small_problem({"influence.method": "direct-if"}))
    given = scores(direct(**{"influence.damping": 1e-4}))
    eigenvalues = torch.linalg.eigvalsh(Dense(direct()).partial_hessian())
    assert eigenvalues[0] < -DELTA  # else there is nothing to raise for
    assert found.solver["damping"] > -float(eigenvalues[0]) - DELTA and found.solver["converged"]
    assert "negative eigenvalues" in found.warnings[0]
    assert not given.solver["converged"] and "raise influence.damping" in given.warnings[0]


def pooled_matrix(problem, fisher):
    """EK-FAC of the pooled queries, each at its task's adapted parameters, by hand."""
    dense, train, passes = Dense(problem), problem.train, []
    for k in range(len(train)):
        theta = dense.layout.unflatten(dense.theta(train, k), dense.params)
        data = task_tensors(train, k)
        labels = data.query_y if fisher == "empirical" else None
        passes.append(layer_pass(theta, data.query_x, labels))
    basis = kronecker_basis(passes)
    rows = torch.cat([fisher_gradients(one).flatten(0, 1) for one in passes])
    values = (rows @ basis).square().sum(0) / (M * len(train))
    matrix = torch.zeros(len(values), len(values), dtype=torch.float64)
    places = by_layer(dense.params)
    matrix[places[:, None], places] = basis @ torch.diag(values) @ basis.T
    return matrix


@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_ekfac_influence_is_that_of_dense_algebra(fisher):
    changes = {"influence.fisher": fisher, "influence.damping": DAMPING}
    problem = small_problem({"influence.method": "ekfac-if", **changes})
    found = scores(problem)
    tasks, instances = expected(problem, pooled_matrix(problem, fisher))
    np.testing.assert_allclose(found.task_influence, tasks, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found.instance_influence, instances, rtol=1e-8, atol=1e-12)
    told = found.solver
    assert (told["curvature"], told["solver"], told["converged"]) == (
        "partial-ekfac",
        "ekfac",
        True,
    )


@pytest.mark.parametrize("method", ["direct-if", "ekfac-if"])
def test_a_head_that_is_no_meta_parameter_counts_too(method):
    """The network of a learner with more or fewer parameters than its meta-parameters."""
    learner = ProtoNet(Head.of(small_problem().model, (FEATURES,)))
    changes = {"influence.method": method, "influence.damping": DAMPING, "learner": PROTONET}
    problem = small_problem(
        {**changes, **(EXACTLY if method == "direct-if" else {})}, learner=learner
    )
    found = scores(problem)
    assert np.isfinite(found.task_influence).all() and np.abs(found.task_influence).max() > 1e-4
    queries = blocks(problem, found.instance_influence)[1].sum(1)
    np.testing.assert_allclose(queries, found.task_influence.mean(1), rtol=1e-9)
    if method == "direct-if":
        # The prototypes are taken as they are, as every other layer.
        dense = Dense(problem)
        tasks, _ = expected(problem, dense.partial_hessian())
        np.testing.assert_allclose(found.task_influence, tasks, rtol=1e-8, atol=1e-12)


PROTONET = {"name": "protonet"}
