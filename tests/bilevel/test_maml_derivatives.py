"""Unrolled MAML on tiny smooth networks in float64: every derivative against dense ones."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import hessian

from metaaudit.bilevel import (
    AdjointSolver,
    Batching,
    Objective,
    TotalHessian,
    Unrolled,
    curvature_scale,
    over_tasks,
    total_gradients,
    unit_weights,
    weight_derivatives,
)
from metaaudit.bilevel.adjoint import auto_damping
from metaaudit.config.schema import Conv4Config, InfluenceConfig
from metaaudit.errors import ConfigError, IncompleteError
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.learners import MAML
from metaaudit.models import Layout, Model, build_model

N_TASKS, N, M, WAYS, FEATURES = 6, 4, 6, 2, 3


def random_tasks(shape, n=N, m=M, n_tasks=N_TASKS, ways=WAYS, seed=0):
    rng = np.random.default_rng(seed)
    count = n + m
    x = rng.standard_normal((n_tasks * count, *shape)).astype(np.float32)
    found = []
    for k in range(n_tasks):
        rows = np.arange(k * count, (k + 1) * count)
        labels = rng.permutation(np.arange(count) % ways)
        labels[:ways] = np.arange(ways)
        found.append(Task(f"t{k}", rows[:n], labels[:n], rows[n:], labels[n:]))
    return TaskSet(ImagePool(x, tuple(str(i) for i in range(len(x)))), tuple(found))


def batching(size=4):
    return Batching(size, torch.device("cpu"), torch.float64)


def small_mlp(seed=0):
    """Smooth, so that finite differences meet no kink."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(FEATURES, 4), nn.Tanh(), nn.Linear(4, WAYS))
    return Model(module.double(), "")


@pytest.fixture
def case():
    model = small_mlp()
    objective = Objective(model, MAML(inner_lr=0.3, steps=2))
    return objective, model.initial(), random_tasks((FEATURES,))


def flat_task_loss(objective, params, task_set, k, weights=None):
    """L_k of the flat parameters and the instance weights."""
    layout = Layout.of(params)
    (batch,) = batching(1).batches(task_set.select([k]))
    data = type(batch.data)(*(tensor[0] for tensor in batch.data))

    def loss(vector, w, v):
        return objective.task_loss(layout.unflatten(vector, params), w, v, data)

    return loss, layout.flatten(params), unit_weights(data)


def test_total_gradients_equal_finite_differences(case):
    objective, params, task_set = case
    found = total_gradients(Unrolled(objective, params, task_set, batching())).gradients
    for k in (0, 5):
        loss, point, (w, v) = flat_task_loss(objective, params, task_set, k)
        step = 1e-6
        for i in range(0, len(point), 5):
            shift = torch.zeros_like(point)
            shift[i] = step
            difference = (loss(point + shift, w, v) - loss(point - shift, w, v)) / (2 * step)
            assert found[k, i] == pytest.approx(float(difference), rel=1e-6, abs=1e-9)


def test_losses_on_the_way_are_those_after_adaptation(case):
    objective, params, task_set = case
    found = total_gradients(Unrolled(objective, params, task_set, batching()))
    for k, task in enumerate(task_set.tasks):
        loss, point, (w, v) = flat_task_loss(objective, params, task_set, k)
        part = slice(k * (N + M), (k + 1) * (N + M))
        assert found.outer_loss[k] == pytest.approx(float(loss(point, w, v)), rel=1e-12)
        # With w fixed, L_k is the mean of the query losses: the mean of what is reported.
        assert found.losses[part][N:].mean() == pytest.approx(found.outer_loss[k], rel=1e-12)
        assert found.correct[part].shape == (sum(task.shape),)


def dense_total_hessian(objective, params, task_set):
    total = 0
    for k in range(len(task_set)):
        loss, point, (w, v) = flat_task_loss(objective, params, task_set, k)
        total = total + hessian(lambda x, loss=loss, w=w, v=v: loss(x, w, v))(point)
    return total / len(task_set)


def test_total_hessian_equals_the_dense_matrix(case):
    objective, params, task_set = case
    dense = dense_total_hessian(objective, params, task_set)
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()), shift=0.7)
    eye = torch.eye(len(dense), dtype=torch.float64)
    torch.testing.assert_close(operator(eye), dense + 0.7 * eye, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("solver", ["cg", "neumann", "dense"])
def test_solvers_agree_with_the_dense_matrix(case, solver):
    objective, params, task_set = case
    dense = dense_total_hessian(objective, params, task_set)
    shift = 1.0 - 2 * float(torch.linalg.eigvalsh(dense)[0].clamp(max=0))
    gradients = torch.from_numpy(
        total_gradients(Unrolled(objective, params, task_set, batching())).gradients
    )
    config = InfluenceConfig(
        curvature="exact", solver=solver, damping=shift, tolerance=1e-12, max_iterations=1000
    )
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()))
    adjoint = AdjointSolver(config, operator, gradients, 0.0).solve(gradients[:2])
    eye = torch.eye(len(dense), dtype=torch.float64)
    expected = torch.linalg.solve(dense + shift * eye, gradients[:2].T).T
    torch.testing.assert_close(adjoint.direction, expected, rtol=1e-9, atol=1e-12)
    assert adjoint.warnings == () and adjoint.solution.solver == solver


def test_weight_derivatives_equal_finite_differences(case):
    objective, params, task_set = case
    generator = torch.Generator().manual_seed(3)
    size = Layout.of(params).size
    u = torch.randn(size, generator=generator, dtype=torch.float64)
    found = weight_derivatives(Unrolled(objective, params, task_set, batching()), u).reshape(
        N_TASKS, N + M
    )
    step = 1e-4
    for k in (1, 4):
        loss, point, (w, v) = flat_task_loss(objective, params, task_set, k)

        def slope(w, v, loss=loss, point=point):
            return (loss(point + step * u, w, v) - loss(point - step * u, w, v)) / (2 * step)

        for i in range(N):
            dw = torch.zeros_like(w)
            dw[i] = step
            difference = (slope(w + dw, v) - slope(w - dw, v)) / (2 * step)
            # Differences of differences: truncation and rounding are both about 1e-7.
            assert found[k, i] == pytest.approx(float(difference), rel=1e-4, abs=1e-7)
        for j in range(M):
            dv = torch.zeros_like(v)
            dv[j] = step
            difference = (slope(w, v + dv) - slope(w, v - dv)) / (2 * step)
            assert found[k, N + j] == pytest.approx(float(difference), rel=1e-4, abs=1e-7)


def test_nothing_depends_on_the_task_batch(case):
    objective, params, task_set = case
    u = torch.ones(Layout.of(params).size, dtype=torch.float64)

    def everything(size):
        operator = TotalHessian(Unrolled(objective, params, task_set, batching(size)))
        found = total_gradients(Unrolled(objective, params, task_set, batching(size)))
        return [
            found.gradients,
            found.losses,
            operator(u[None]).numpy(),
            weight_derivatives(Unrolled(objective, params, task_set, batching(size)), u),
        ]

    reference = everything(N_TASKS)
    for size in (1, 4):
        for got, expected in zip(everything(size), reference, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-14)


def test_tasks_of_different_sizes_are_batched_by_shape(case):
    objective, params, _ = case
    large = random_tasks((FEATURES,), n=6, m=3, n_tasks=2, seed=1)
    small = random_tasks((FEATURES,), n=4, m=6, n_tasks=2, seed=2)
    pixels = np.concatenate([large.pool.pixels, small.pool.pixels])
    pool = ImagePool(pixels, tuple(str(i) for i in range(len(pixels))))
    offset = len(large.pool.pixels)
    moved = [
        Task(f"s{k}", t.support + offset, t.support_y, t.query + offset, t.query_y)
        for k, t in enumerate(small.tasks)
    ]
    mixed = TaskSet(pool, (large.tasks[0], moved[0], large.tasks[1], moved[1]))
    found = total_gradients(Unrolled(objective, params, mixed, batching()))
    for row in range(4):
        alone = total_gradients(Unrolled(objective, params, mixed.select([row]), batching()))
        np.testing.assert_allclose(found.gradients[row], alone.gradients[0], rtol=1e-10)
    ends = np.cumsum([sum(task.shape) for task in mixed.tasks])
    last = total_gradients(Unrolled(objective, params, mixed.select([3]), batching()))
    np.testing.assert_allclose(found.losses[ends[2] :], last.losses, rtol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
def test_conv4_second_derivatives_are_symmetric_and_exact(norm, downsample):
    """H from forward over reverse against differences of the gradient, for every layer."""
    config = Conv4Config(name="conv4", hidden=4, ways=WAYS, norm=norm, downsample=downsample)
    model = build_model(config, input_shape=(1, 16, 16), ways=WAYS, seed=1)
    model = model.to(torch.device("cpu"), torch.float64)
    objective, params = Objective(model, MAML(0.1, 2)), model.initial()
    task_set = random_tasks((1, 16, 16), n_tasks=2)
    layout = Layout.of(params)
    point = layout.flatten(params)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, layout.size, generator=generator, dtype=torch.float64)
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()))
    product = operator(u)
    assert float(product[0] @ u[1]) == pytest.approx(float(product[1] @ u[0]), rel=1e-9)

    def mean_gradient(vector):
        found = total_gradients(
            Unrolled(objective, layout.unflatten(vector, params), task_set, batching())
        ).gradients
        return torch.from_numpy(found.mean(axis=0))

    # A step this small crosses no ReLU or pooling kink here; it leaves 1e-6 of rounding.
    step = 1e-9
    difference = (mean_gradient(point + step * u[0]) - mean_gradient(point - step * u[0])) / (
        2 * step
    )
    assert float((difference - product[0]).norm() / product[0].norm()) < 1e-5


def test_neumann_falls_back_to_cg_and_says_so(case):
    objective, params, task_set = case
    dense = dense_total_hessian(objective, params, task_set)
    assert torch.linalg.eigvalsh(dense)[0] < 0
    gradients = torch.from_numpy(
        total_gradients(Unrolled(objective, params, task_set, batching())).gradients
    )
    config = InfluenceConfig(
        curvature="exact", solver="neumann", damping=0.0, max_iterations=20000, tolerance=1e-10
    )
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()))
    adjoint = AdjointSolver(config, operator, gradients, 0.0).solve(gradients[:1])
    assert adjoint.solution.solver == "cg"
    assert "Neumann diverged" in adjoint.warnings[0]


@pytest.mark.parametrize("solver", ["cg", "neumann", "dense"])
def test_automatic_damping_rises_until_the_hessian_is_positive(case, solver):
    objective, params, task_set = case
    dense = dense_total_hessian(objective, params, task_set)
    gradients = torch.from_numpy(
        total_gradients(Unrolled(objective, params, task_set, batching())).gradients
    )
    config = InfluenceConfig(
        curvature="exact", solver=solver, tolerance=1e-10, max_iterations=20000
    )
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()))
    adjoint = AdjointSolver(config, operator, gradients, 0.0).solve(gradients[:2])
    assert adjoint.solution.converged
    assert adjoint.damping > -float(torch.linalg.eigvalsh(dense)[0])
    assert any("damping was raised from" in text for text in adjoint.warnings)


def test_a_solve_that_does_not_converge_is_reported(case):
    objective, params, task_set = case
    gradients = torch.from_numpy(
        total_gradients(Unrolled(objective, params, task_set, batching())).gradients
    )
    config = InfluenceConfig(curvature="exact", damping=1.0, max_iterations=1, tolerance=1e-10)
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()))
    adjoint = AdjointSolver(config, operator, gradients, 0.0).solve(gradients[:2])
    assert not adjoint.solution.converged
    assert "did not converge for 2 of 2 targets" in adjoint.warnings[0]


def test_unusable_solves_are_refused(case):
    objective, params, task_set = case
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()))
    gradients = torch.from_numpy(total_gradients(operator.adaptation).gradients)
    with pytest.raises(ConfigError, match="singular"):
        AdjointSolver(InfluenceConfig(damping=0.0), operator, gradients, 0.0).solve(gradients[:1])
    with pytest.raises(ConfigError, match="singular"):
        alike = torch.ones_like(gradients)
        AdjointSolver(InfluenceConfig(damping=1e-30), operator, alike, 0.0).solve(gradients[:1])
    bad = torch.full_like(gradients[:1], torch.nan)
    with pytest.raises(IncompleteError, match="non-finite"):
        AdjointSolver(InfluenceConfig(), operator, gradients, 0.0).solve(bad)


def test_auto_damping_is_a_tenth_of_the_mean_eigenvalue_in_the_span():
    generator = torch.Generator().manual_seed(0)
    for shape in ((4, 9), (9, 4)):
        factor = torch.randn(*shape, generator=generator, dtype=torch.float64)
        eigenvalues = torch.linalg.eigvalsh(factor.T @ factor)[-4:]
        assert auto_damping(factor) == pytest.approx(0.1 * float(eigenvalues.mean()), rel=1e-12)


def test_curvature_scale_compares_quadratic_forms(case):
    objective, params, task_set = case
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()))
    gradients = torch.from_numpy(total_gradients(operator.adaptation).gradients)
    u = torch.ones(gradients.shape[1], dtype=torch.float64)
    solver = AdjointSolver(InfluenceConfig(), operator, gradients, 0.0)
    scale = curvature_scale(operator, solver.approximation, u, n_tasks=N_TASKS)
    unit = u / u.norm()
    dense = dense_total_hessian(objective, params, task_set)
    assert scale.exact == pytest.approx(float(unit @ dense @ unit), rel=1e-9)
    fisher = M / N_TASKS * float((gradients @ unit).square().sum())
    assert scale.approximate == pytest.approx(fisher, rel=1e-10)


def test_first_order_maml_has_another_gradient(case):
    objective, params, task_set = case
    first = Objective(objective.forward, MAML(0.3, 2, first_order=True))
    (batch,) = batching(N_TASKS).batches(task_set)
    full = total_gradients(Unrolled(objective, params, task_set, batching())).gradients
    short = total_gradients(Unrolled(first, params, task_set, batching())).gradients
    adapted = over_tasks(lambda p, w, v, data: objective.adapt(p, w, data), params, batch.data)
    for k in range(N_TASKS):
        at = {name: p[k] for name, p in adapted.items()}
        alone = task_set.select([k])
        no_steps = Objective(objective.forward, MAML(0.3, 0))
        expected = total_gradients(Unrolled(no_steps, at, alone, batching())).gradients[0]
        np.testing.assert_allclose(short[k], expected, rtol=1e-10, atol=1e-14)
    assert np.abs(full - short).max() > 1e-3
