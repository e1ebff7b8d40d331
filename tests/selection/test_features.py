"""Features of instances, against the plainest code there is for each."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from metaaudit.selection import (
    DYNAMICS,
    HELD_OUT,
    POSITIONS,
    beside_held_out,
    dynamics,
    positions,
)

POSITIONS_MODULE = "metaaudit.selection.positions"
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 3])


@pytest.fixture(params=[0, 1, 2])
def embedding(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(request.param).standard_normal((len(LABELS), 4))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def named(values: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    assert values.shape[1] == len(names)
    return dict(zip(names, values.T, strict=True))


def test_cosines_to_centroids(embedding: np.ndarray) -> None:
    found = named(positions(embedding, LABELS), POSITIONS)
    unit = [row / np.linalg.norm(row) for row in embedding]
    for i, label in enumerate(LABELS):
        others = [unit[j] for j in range(len(LABELS)) if LABELS[j] == label and j != i]
        own = cosine(unit[i], np.mean(others, axis=0)) if others else 0.0
        assert found["own_centroid"][i] == pytest.approx(own, abs=1e-12)
        means = [
            np.mean([unit[j] for j in range(len(LABELS)) if LABELS[j] == c], axis=0)
            for c in set(LABELS) - {label}
        ]
        assert found["other_centroid"][i] == pytest.approx(max(cosine(unit[i], m) for m in means))


def test_neighbours(embedding: np.ndarray) -> None:
    found = named(positions(embedding, LABELS), POSITIONS)
    for i, label in enumerate(LABELS):
        pairs = [
            (cosine(embedding[i], embedding[j]), LABELS[j]) for j in range(len(LABELS)) if j != i
        ]
        pairs.sort(key=lambda pair: -pair[0])
        own = [c for c, other in pairs if other == label][:3]
        for rank, expected in enumerate([*own, 0.0, 0.0, 0.0][:3], start=1):
            assert found[f"closest_{rank}"][i] == pytest.approx(expected)
        nearest = pairs[:5]
        weights = [max(c, 0.0) for c, _ in nearest]
        same = sum(w for w, (_, other) in zip(weights, nearest, strict=True) if other == label)
        agreement = same / sum(weights) if sum(weights) else 0.0
        assert found["agreement"][i] == pytest.approx(agreement)
        assert found["density"][i] == pytest.approx(np.mean([c for c, _ in nearest]))


def test_ranks_of_unusual_distances(embedding: np.ndarray) -> None:
    found = named(positions(embedding, LABELS), POSITIONS)["distance_rank"]
    for label in set(LABELS):
        rows = np.flatnonzero(label == LABELS)
        mean = embedding[rows].mean(axis=0)
        distance = [np.linalg.norm(embedding[row] - mean) for row in rows]
        unusual = [abs(d - np.median(distance)) for d in distance]
        for row, own in zip(rows, unusual, strict=True):
            below = sum(other < own - 1e-9 for other in unusual)  # even classes have ties
            assert found[row] == pytest.approx(below / max(1, len(rows) - 1))


def test_positions_do_not_depend_on_the_scale_or_the_order(embedding: np.ndarray) -> None:
    found = positions(embedding, LABELS)
    np.testing.assert_allclose(positions(7 * embedding, LABELS), found, atol=1e-12)
    order = np.random.default_rng(0).permutation(len(LABELS))
    np.testing.assert_allclose(positions(embedding[order], LABELS[order]), found[order], atol=1e-12)


def test_positions_do_not_depend_on_the_size_of_blocks(
    embedding: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = positions(embedding, LABELS)
    monkeypatch.setattr(sys.modules[POSITIONS_MODULE], "BLOCK", 3)
    np.testing.assert_allclose(positions(embedding, LABELS), whole, rtol=1e-12)


def test_what_stands_alone_has_features_all_the_same() -> None:
    assert np.isfinite(positions(np.zeros((3, 2)), np.array([0, 0, 1]))).all()
    assert np.isfinite(positions(np.ones((1, 2)), np.array([0]))).all()
    assert np.isfinite(positions(np.ones((4, 2)), np.zeros(4, dtype=np.int64))).all()


def test_dynamics() -> None:
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((6, len(LABELS), 4)) * 2
    log_p = logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)
    embedding = rng.standard_normal((len(LABELS), 3))
    found = named(dynamics(log_p, LABELS, embedding), DYNAMICS)
    for i, label in enumerate(LABELS):
        given = [step[i, label] for step in log_p]
        margin = [step[i, label] - max(np.delete(step[i], label)) for step in log_p]
        right = [step[i].argmax() == label for step in log_p]
        one_hot = np.eye(4)[label]
        expected = {
            "loss_first": -given[0],
            "loss_last": -given[-1],
            "loss_mean": -np.mean(given),
            "loss_std": np.std(given),
            "margin_mean": np.mean(margin),
            "margin_std": np.std(margin),
            "confidence": np.mean(np.exp(given)),
            "variability": np.std(np.exp(given)),
            "forgetting": sum(a and not b for a, b in pairwise(right)),
            "el2n": np.linalg.norm(np.exp(log_p[-1, i]) - one_hot),
        }
        for name, value in expected.items():
            assert found[name][i] == pytest.approx(value), name


def test_the_norm_of_the_last_layers_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(3, 4).double()
    x = torch.randn(len(LABELS), 3, generator=generator, dtype=torch.float64)
    log_p = layer(x).log_softmax(-1)
    found = named(dynamics(log_p.detach().numpy()[None], LABELS, x.numpy()), DYNAMICS)
    for i, label in enumerate(LABELS):
        gradients = torch.autograd.grad(-log_p[i, label], layer.parameters(), retain_graph=True)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert found["gradient_norm"][i] == pytest.approx(float(norm))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_cosines_to_held_out_instances(embedding: np.ndarray, count: int) -> None:
    held_out = np.random.default_rng(9).standard_normal((count, 4))
    found = named(beside_held_out(embedding, held_out), HELD_OUT)
    unit = [row / np.linalg.norm(row) for row in held_out]
    for i, row in enumerate(embedding):
        nearest = sorted((cosine(row, other) for other in held_out), reverse=True)
        for rank, expected in enumerate([*nearest, 0.0, 0.0][:3], start=1):
            assert found[f"held_out_{rank}"][i] == pytest.approx(expected)
        assert found["held_out_mean"][i] == pytest.approx(cosine(row, np.mean(unit, axis=0)))


def test_one_step_has_no_spread() -> None:
    log_p = np.log(np.full((1, 2, 2), 0.5))
    found = named(dynamics(log_p, np.array([0, 1]), np.zeros((2, 1))), DYNAMICS)
    for name in ("loss_std", "margin_std", "variability", "forgetting"):
        assert (found[name] == 0).all()
