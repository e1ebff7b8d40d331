"""Batch statistics in elementary operations, right to the third derivative."""

import pytest
import torch
from torch import nn
from torch.func import grad, jvp

from metaaudit.models import Model
from metaaudit.models.normalisation import BatchStatisticsNorm, with_batch_statistics

MODULES = {
    "batch": lambda: nn.BatchNorm2d(3),
    "batch, not affine": lambda: nn.BatchNorm2d(3, affine=False),
    "instance": lambda: nn.InstanceNorm2d(3, affine=True),
    "instance, not affine": lambda: nn.InstanceNorm2d(3),
}


def inputs(shape=(5, 3, 4, 4), seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", MODULES)
def test_values_equal_torch_in_training_mode(name):
    module = MODULES[name]().double().train()
    for p in module.parameters():
        nn.init.normal_(p)
    expected = module(inputs())
    torch.testing.assert_close(BatchStatisticsNorm(module)(inputs()), expected)


def test_batch_norm_of_vectors():
    module = nn.BatchNorm1d(3).double().train()
    x = inputs((5, 3))
    torch.testing.assert_close(BatchStatisticsNorm(module)(x), module(x))


def third_derivative(norm, at, direction):
    """The derivative along ``direction`` of the gradient of a function of a gradient."""
    x, c = inputs(), inputs(seed=1)

    def first(w):
        return (
            torch.sin(norm(x * w[:, None, None] ** 2 + x**2 * w.flip(0)[:, None, None])) * c
        ).sum()

    def second(w):
        return (grad(first)(w) ** 2).sum()

    return second, jvp(grad(second), (at,), (direction,))[1]


def test_third_derivative_equals_finite_differences():
    norm = BatchStatisticsNorm(nn.BatchNorm2d(3, affine=False))
    at, direction = inputs((3,), seed=2), inputs((3,), seed=3)
    second, exact = third_derivative(norm, at, direction)
    step = 1e-6
    difference = (grad(second)(at + step * direction) - grad(second)(at - step * direction)) / (
        2 * step
    )
    torch.testing.assert_close(exact, difference, rtol=1e-6, atol=1e-6)


def test_modules_are_replaced_with_their_names_kept():
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), nn.GroupNorm(1, 3)
    )
    names = [name for name, _ in module.named_parameters()]
    model = Model(module, "")
    assert [name for name, _ in model.module.named_parameters()] == names
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.module.modules())
    assert not list(model.module.buffers())
    assert isinstance(with_batch_statistics(nn.BatchNorm2d(2)), BatchStatisticsNorm)


def test_a_model_changes_no_state():
    model = Model(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)), "")
    params = model.initial()
    before = {name: p.clone() for name, p in model.module.state_dict().items()}
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(params, x), model(params, x))
    after = model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
