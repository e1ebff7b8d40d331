"""Unrolled MAML on tiny smooth networks in float64: every derivative against dense ones."""

import numpy as np
import pytest
import torch

from metaaudit.bilevel import (
    FirstOrder,
    Objective,
    TotalHessian,
    Unrolled,
    over_tasks,
    total_gradients,
    weight_derivatives,
)
from metaaudit.config.model import Conv4Config
from metaaudit.learners import MAML
from metaaudit.models import Layout, build_model
from tests.bilevel.small_networks import (
    N_TASKS,
    WAYS,
    M,
    N,
    batching,
    dense_total_hessian,
    flat_task_loss,
    ragged_tasks,
    random_tasks,
    small_mlp,
)


@pytest.fixture
def case():
    model = small_mlp()
    objective = Objective(model, MAML(inner_lr=0.3, steps=2))
    return objective, model.initial(), random_tasks()


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


def test_total_hessian_equals_the_dense_matrix(case):
    objective, params, task_set = case
    dense = dense_total_hessian(objective, params, task_set)
    operator = TotalHessian(Unrolled(objective, params, task_set, batching()), shift=0.7)
    eye = torch.eye(len(dense), dtype=torch.float64)
    torch.testing.assert_close(operator(eye), dense + 0.7 * eye, rtol=1e-10, atol=1e-12)


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
    mixed = ragged_tasks()
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


def test_first_order_maml_has_another_gradient(case):
    objective, params, task_set = case
    (batch,) = batching(N_TASKS).batches(task_set)
    full = total_gradients(Unrolled(objective, params, task_set, batching())).gradients
    short = total_gradients(FirstOrder(objective, params, task_set, batching())).gradients
    adapted = over_tasks(lambda p, w, v, data: objective.adapt(p, w, data), params, batch.data)
    for k in range(N_TASKS):
        at = {name: p[k] for name, p in adapted.items()}
        alone = task_set.select([k])
        no_steps = Objective(objective.forward, MAML(0.3, 0))
        expected = total_gradients(Unrolled(no_steps, at, alone, batching())).gradients[0]
        np.testing.assert_allclose(short[k], expected, rtol=1e-10, atol=1e-14)
    assert np.abs(full - short).max() > 1e-3
