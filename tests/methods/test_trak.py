"""TRAK against its formula in dense algebra, and its projection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import grad

from metaaudit.curvature import weights_hash
from metaaudit.errors import ConfigError
from metaaudit.methods.margins import margins
from metaaudit.methods.projection import Projection
from metaaudit.methods.trak import kernel_solve
from tests.bilevel.small_networks import task_tensors, unit_weights
from tests.methods.small_given import Dense, blocks, scores, small_problem


def trak(dimension=512, damping=0.01, seed=0, **options):
    changes = {"method": "trak", "trak": {"dimension": dimension}, "damping": damping, "seed": seed}
    problem = small_problem(
        {f"influence.{key}": value for key, value in changes.items()}, **options
    )
    return problem, scores(problem)


class Reference(Dense):
    """Margins and probabilities after adaptation, as functions of the flat meta-parameters."""

    def probabilities(self, point, task_set, k):
        data = task_tensors(task_set, k)
        params, weights = self.layout.unflatten(point, self.params), unit_weights(data)[0]
        theta = self.problem.objective.adapt(params, weights, data)
        outputs = self.problem.model(theta, data.query_x)
        return outputs.softmax(-1).gather(1, data.query_y[:, None])[:, 0]

    def margin_gradients(self, task_set):
        """``[n_tasks, m, size]``."""

        def margins(point, k):
            p = self.probabilities(point, task_set, k)
            return (p / (1 - p)).log()

        tasks = range(len(task_set))
        return torch.stack(
            [
                torch.autograd.functional.jacobian(lambda x, k=k: margins(x, k), self.point)
                for k in tasks
            ]
        )

    def signs(self, dimension, seed=0):
        drawn = int(weights_hash(self.params)[:16], 16)
        projection = Projection(self.layout.size, dimension, (seed, drawn))
        return projection.up(torch.eye(dimension, dtype=torch.float64)).T


# Dimensions above and below the number of tasks, which take other ways through the kernel.
@pytest.mark.parametrize("dimension", [3, 40])
def test_scores_are_those_of_the_formula(dimension):
    problem, found = trak(dimension)
    dense, train = Reference(problem), problem.train
    each = dense.margin_gradients(train)
    targets = dense.margin_gradients(problem.evaluation).mean(1)
    signs = dense.signs(dimension)
    n, m = each.shape[:2]
    phi = each.mean(1) @ signs
    kernel = phi.T @ phi / n + 0.01 * torch.eye(dimension, dtype=torch.float64)
    solved = torch.linalg.solve(kernel, (targets @ signs).T).T
    wrong = [1 - dense.probabilities(dense.point, train, k) for k in range(n)]
    q = torch.stack(wrong).mean(1)
    expected = -q[:, None] * (phi @ solved.T) / n
    np.testing.assert_allclose(found.task_influence, expected.numpy(), rtol=1e-9, atol=1e-14)
    support, query = blocks(problem, found.instance_influence)
    u = signs @ solved.mean(0)
    shares = -q[:, None] * (each @ u) / (n * m)
    np.testing.assert_allclose(query, shares.numpy(), rtol=1e-9, atol=1e-14)
    through = torch.stack([dense.weight_derivative(k, u) for k in range(n)]) / n
    np.testing.assert_allclose(support, through.numpy(), rtol=1e-9, atol=1e-14)
    told = found.solver
    assert (told["curvature"], told["damping"], told["tolerance"]) == ("trak-kernel", 0.01, 1e-4)


def test_a_task_that_is_evaluated_on_itself_helps():
    problem, _ = trak()
    found = scores(replace(problem, evaluation=problem.train))
    assert (np.diag(found.task_influence) < 0).all()


def test_the_seed_chooses_the_signs():
    (problem, one), (_, other) = trak(5), trak(5, seed=1)
    assert not np.allclose(one.task_influence, other.task_influence)
    np.testing.assert_array_equal(scores(problem).task_influence, one.task_influence)


def test_automatic_damping_is_a_tenth_of_the_mean_eigenvalue_in_the_span():
    problem, found = trak(7, damping="auto")
    dense = Reference(problem)
    phi = dense.margin_gradients(problem.train).mean(1) @ dense.signs(7)
    values = torch.linalg.eigvalsh(phi.T @ phi / len(phi))[-6:]
    assert found.solver["damping"] == pytest.approx(0.1 * float(values.mean()), rel=1e-9)


@pytest.mark.parametrize("dimension", [3, 40])
def test_a_singular_kernel_is_refused(dimension):
    rows = torch.ones(6, dimension, dtype=torch.float64)
    with pytest.raises(ConfigError, match="leaves a singular kernel"):
        kernel_solve(rows, 0.0, rows[:1])


def test_projection_is_linear_in_blocks_and_keeps_products():
    vectors = torch.randn(4, 3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    projection = Projection(3000, 2000, (1, 2))
    down = projection.down(vectors)
    eye = projection.up(torch.eye(2000, dtype=torch.float64))
    torch.testing.assert_close(down, vectors @ eye.T)
    assert torch.equal(eye.abs(), torch.full_like(eye, 2000**-0.5))
    # Of two unit vectors the product is off by about 1 / sqrt(2000) = 0.022.
    unit, low = (
        vectors / vectors.norm(dim=1, keepdim=True),
        down / vectors.norm(dim=1, keepdim=True),
    )
    assert float((low @ low.T - unit @ unit.T).abs().max()) < 0.1
    for rows in (slice(0, 1), slice(1, 4)):
        torch.testing.assert_close(
            projection.down(vectors[rows]), down[rows], rtol=1e-12, atol=1e-12
        )
    assert not torch.equal(Projection(3000, 2000, (1, 3)).down(vectors), down)


def test_a_margin_is_the_log_odds_however_sure_the_network_is():
    outputs = torch.tensor([[0.3, -1.0, 2.0], [0.0, 800.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([2, 1])
    p = outputs[0].softmax(0)[2]
    found = margins(outputs, labels)
    assert float(found[0]) == pytest.approx(float((p / (1 - p)).log()), rel=1e-12)
    assert float(found[1]) == pytest.approx(800 - float(outputs[1, [0, 2]].logsumexp(0)), rel=1e-12)
    slope = grad(lambda out: margins(out, labels).sum())(outputs)
    assert bool(slope.isfinite().all())
