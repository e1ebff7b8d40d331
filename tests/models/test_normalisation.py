"""Batch statistics in elementary operations, right to the third derivative."""

import pytest
import torch
from torch import nn
from torch.func import grad, jvp

from metaaudit.models import Model
from metaaudit.models.normalisation import ElementaryNorm, with_elementary_norms

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
    torch.testing.assert_close(ElementaryNorm(module)(inputs()), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_equals_torch(bias):
    module = nn.LayerNorm((3, 4), bias=bias).double()
    for p in module.parameters():
        nn.init.normal_(p)
    torch.testing.assert_close(
        ElementaryNorm(module)(inputs((5, 2, 3, 4))), module(inputs((5, 2, 3, 4)))
    )


def test_batch_norm_of_vectors():
    module = nn.BatchNorm1d(3).double().train()
    x = inputs((5, 3))
    torch.testing.assert_close(ElementaryNorm(module)(x), module(x))


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


@pytest.mark.parametrize(
    "module",
    [nn.BatchNorm2d(3, affine=False), nn.LayerNorm((4, 4), elementwise_affine=False)],
    ids=["batch", "layer"],
)
def test_third_derivative_equals_finite_differences(module):
    norm = ElementaryNorm(module)
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
    assert isinstance(with_elementary_norms(nn.BatchNorm2d(2)), ElementaryNorm)


def test_shared_modules_and_tied_weights_are_one_parameter():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.same = self.one
            self.other = nn.Linear(4, 4)
            self.other.weight = self.one.weight

        def forward(self, x):
            return self.other(self.same(self.one(x)))

    model = Model(Tied(), "")
    params = {name: torch.ones_like(p) for name, p in model.initial().items()}
    assert list(params) == ["one.weight", "one.bias", "other.bias"]
    outputs = model(params, torch.ones(1, 4))
    assert outputs.tolist() == [[4 * (4 * (4 + 1) + 1) + 1] * 4]
    before = model.initial()
    grad(lambda p: model(p, torch.ones(1, 4)).sum())(params)
    assert all(torch.equal(before[name], p) for name, p in model.initial().items())


def test_a_model_changes_no_state():
    model = Model(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)), "")
    params = model.initial()
    before = {name: p.clone() for name, p in model.module.state_dict().items()}
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(params, x), model(params, x))
    after = model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_shared_module_is_replaced_under_all_its_names():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.BatchNorm1d(4)
            self.other = self.one

    module = with_elementary_norms(Shared())
    assert isinstance(module.one, ElementaryNorm) and module.other is module.one
