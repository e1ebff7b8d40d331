"""Influences and alignments of tasks from their gradients, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metaaudit.influence import alignment, task_influence


def test_task_influence_is_a_product_over_the_number_of_tasks() -> None:
    rng = np.random.default_rng(0)
    gradients, directions = rng.standard_normal((5, 7)), rng.standard_normal((3, 7))
    found = task_influence(torch.from_numpy(gradients), torch.from_numpy(directions))
    assert found.shape == (5, 3)
    for k in range(5):
        for t in range(3):
            assert found[k, t] == pytest.approx(-(directions[t] @ gradients[k]) / 5, rel=1e-12)


def test_alignment_is_the_cosine_with_the_mean_of_the_others() -> None:
    gradients = np.random.default_rng(0).standard_normal((6, 4))
    found = alignment(gradients)
    for k in range(6):
        others = np.delete(gradients, k, axis=0).mean(axis=0)
        norms = np.linalg.norm(gradients[k]) * np.linalg.norm(others)
        assert found[k] == pytest.approx(gradients[k] @ others / norms, rel=1e-12)


@pytest.mark.parametrize(
    ("gradients", "expected"),
    [
        ([[1, 0], [2, 0], [0, 3]], [2 / np.sqrt(13), 1 / np.sqrt(10), 0]),
        ([[1, 1], [-2, -2]], [-1, -1]),
        ([[0, 0], [1, 2]], [0, 0]),  # a task without a gradient is aligned with none
        ([[1, 0]], [0]),
    ],
)
def test_alignment_by_hand(gradients: list[list[float]], expected: list[float]) -> None:
    found = alignment(np.array(gradients, dtype=np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
