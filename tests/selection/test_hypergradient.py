"""The noise of a meta-network's gradient, against autograd, brute force and drawn data."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from metaaudit.selection import Hypergradient, MetaNetwork, weight_flow


def drawn(
    seed: int, n: int = 6, m: int = 5, normalisation: Any = "sum", shift: float = 0.3
) -> tuple[MetaNetwork, torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    network = MetaNetwork.new(3, 16, normalisation, 0, x)
    rng = np.random.default_rng(seed)
    alignments = rng.standard_normal((n, m)) + shift * x[:, :1].numpy()
    return network, x, alignments


@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
def test_the_gradient_is_that_of_the_network(normalisation: Any) -> None:
    network, x, alignments = drawn(0, normalisation=normalisation)
    gain = network.lookahead(x, torch.from_numpy(alignments.mean(axis=1)), 1.0)
    each = torch.autograd.grad(gain, list(network.layers.parameters()))
    expected = torch.cat([part.flatten() for part in each]).numpy()
    found = Hypergradient.of(network, x, alignments)
    np.testing.assert_allclose(found.gradient(), expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found.single().mean(axis=0), expected, rtol=1e-10, atol=1e-14)


def test_moments_are_means_over_what_is_not_shared() -> None:
    found = Hypergradient.of(*drawn(1))
    n, m = found.alignments.shape
    centred, slopes = found._centred()
    units = centred[:, :, None] * slopes[:, None, :]
    sums: dict[tuple[bool, bool], list[float]] = {}
    for k, j, t, s in itertools.product(range(n), range(n), range(m), range(m)):
        sums.setdefault((k == j, t == s), []).append(float(units[k, t] @ units[j, s]))
    means = {shared: np.mean(values) for shared, values in sums.items()}
    none = means[False, False]
    expected = (
        none,
        means[True, False] - none,
        means[False, True] - none,
        means[True, True] - means[True, False] - means[False, True] + none,
    )
    assert found._moments() == pytest.approx([expected[0], *(max(0, v) for v in expected[1:])])


def test_it_predicts_how_far_batches_agree() -> None:
    """From some tasks, on tasks of the same kind; looser the fewer there are in a batch, whose
    normalisation is its own."""
    network, x, alignments = drawn(2, n=600, m=400, shift=0.5)
    known, unseen = Hypergradient.of(network, x, alignments).halves(0)
    predicted = known.signal_to_noise()
    assert predicted.interval[0] > 0
    for batch in (10, 30, 100):
        measured = unseen.measured_agreement(batch, 200, 0)
        assert predicted.agreement(batch) == pytest.approx(measured, abs=0.1)
    assert predicted.agreement(100) - predicted.agreement(10) > 0.3


def test_pure_noise_has_no_signal() -> None:
    """Means over draws without any: unbiased, and covered by the interval as often as it says."""
    ratios, covered = [], 0
    for seed in range(60):
        network, x, _ = drawn(0, n=40, m=30)
        noise = np.random.default_rng(seed).standard_normal((40, 30))
        found = Hypergradient.of(network, x, noise).signal_to_noise()
        ratios.append(found.ratio)
        covered += found.interval[0] == 0
    assert abs(np.mean(ratios)) < 4 * np.std(ratios) / np.sqrt(len(ratios))
    assert covered >= 50  # of 60, at 97.5%


def test_flow_keeps_the_norm_while_the_sum_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaaudit.selection.flow.STEP", 5e-5)
    alignments = np.random.default_rng(0).standard_normal(50)
    time, weights = weight_flow(alignments)
    assert time[-1] == pytest.approx(0.1) and len(time) == len(weights)
    norms, sums = np.linalg.norm(weights, axis=1), weights.sum(axis=1)
    np.testing.assert_allclose(norms, norms[0], rtol=1e-3)  # of Euler's method
    assert (np.diff(sums) <= 0).all() and sums[-1] < 0.95 * sums[0]
    order = np.argsort(alignments)
    assert (np.diff(weights[-1][order]) >= 0).all()


def test_flow_ends_where_few_count() -> None:
    _, weights = weight_flow(np.random.default_rng(1).standard_normal(100), until=0.25)
    shares = weights / weights.sum(axis=1, keepdims=True)
    effective = 1 / (shares**2).sum(axis=1)
    assert effective[0] == pytest.approx(100)
    assert effective[-1] <= 25 < effective[-2]
    assert weights.min() >= 0 and weights.max() <= 1
    still = weight_flow(np.ones(4), until=0.25)
    assert (still[1] == 0.5).all()
