"""Weights by a meta-network: what they add up to, and how they learn."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad

from metaaudit.selection import MetaNetwork, effective_batch, weight_slopes

DOUBLE = torch.empty(0, dtype=torch.float64)


def network(normalisation: str = "sum", seed: int = 0) -> MetaNetwork:
    return MetaNetwork.new(5, 16, normalisation, seed, DOUBLE)  # type: ignore[arg-type]


def features(n: int = 7) -> torch.Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
def test_shares_add_up_to_one_and_follow_the_weights(normalisation: str) -> None:
    made = network(normalisation)
    shares, weights = made.shares(features()).detach(), made.weights(features()).detach()
    assert float(shares.sum()) == pytest.approx(1, abs=1e-12)
    assert shares.argsort().tolist() == weights.argsort().tolist()
    assert bool(((weights > 0) & (weights < 1)).all())


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(11)
    first = network().weights(features())
    torch.manual_seed(12)
    assert torch.equal(network().weights(features()), first)
    assert not torch.equal(network(seed=1).weights(features()), first)


def test_making_a_network_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    network()
    assert torch.equal(torch.rand(3), expected)


def held_out(theta: torch.Tensor) -> torch.Tensor:
    return (theta.sin() * torch.arange(1.0, 5.0, dtype=torch.float64)).sum()


def test_the_slope_of_a_weight_is_that_of_the_held_out_loss_after_a_step() -> None:
    """By automatic differentiation through the step, where its first order is all there is."""
    generator = torch.Generator().manual_seed(0)
    theta, gradients, weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64).abs()
        for shape in ((4,), (6, 4), (6,))
    )

    def after(w: torch.Tensor) -> torch.Tensor:
        return held_out(theta - step * (w / w.sum()) @ gradients)

    for step in (1e-2, 0.3):
        there = theta - step * (weights / weights.sum()) @ gradients
        alignment = gradients @ grad(held_out)(there)
        torch.testing.assert_close(
            weight_slopes(weights, alignment, step), grad(after)(weights), rtol=1e-10, atol=1e-14
        )


def test_slopes_are_orthogonal_to_the_weights() -> None:
    weights, alignment = torch.rand(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    assert float(weight_slopes(weights, alignment, 0.1) @ weights) == pytest.approx(0, abs=1e-15)


def test_the_network_learns_by_the_same_slopes() -> None:
    made, x = network(), features()
    alignment = torch.linspace(-1, 1, len(x), dtype=torch.float64)
    parameters = list(made.layers.parameters())
    found = torch.autograd.grad(made.lookahead(x, alignment, 0.2), parameters)
    weights = made.weights(x)
    slopes = weight_slopes(weights.detach(), alignment, 0.2)
    expected = torch.autograd.grad(weights, parameters, slopes)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_what_is_aligned_gains_weight() -> None:
    made, x = network(), features(20)
    alignment = x[:, 0]
    optimiser = torch.optim.AdamW(made.layers.parameters(), lr=1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        made.lookahead(x, alignment, 0.1).backward()
        optimiser.step()
    shares = made.shares(x).detach()
    assert torch.corrcoef(torch.stack([shares, alignment]))[0, 1] > 0.5
    assert effective_batch(shares) < 10


def test_the_effective_batch_counts_what_counts() -> None:
    assert effective_batch(torch.full((8,), 1 / 8)) == pytest.approx(8)
    assert effective_batch(torch.tensor([1.0, 0.0, 0.0])) == 1
