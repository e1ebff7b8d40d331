"""What the manifest says of a solve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from metaaudit.bilevel import Adjoint, Attempt
from metaaudit.config.schema import InfluenceConfig
from metaaudit.linalg import Solution, cg, solve_dense
from metaaudit.manifest import solver


def summary(solution: Solution) -> dict:
    config = SimpleNamespace(
        influence=InfluenceConfig(), training=SimpleNamespace(weight_decay=0.005)
    )
    names = [f"eval-{row}" for row in range(len(solution.status))]
    return solver(config, Adjoint(solution.value, (Attempt(solution, 0.1),)), None, names)


def test_every_target_has_its_own_history_and_the_worst_is_that_of_all() -> None:
    eigenvalues = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    rhs = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]], dtype=torch.float64)
    solution = cg(lambda rows: rows * eigenvalues, rhs, tolerance=1e-9, max_iterations=10)
    found = summary(solution)
    histories = [target["residual_history"] for target in found["targets"]]
    assert [len(history) - 1 for history in histories] == [1, 4, 2]  # as many as eigenvalues met
    for target, history in zip(found["targets"], histories, strict=True):
        assert history[0] == 1.0 and len(history) == target["iterations"] + 1
        assert history[-1] == pytest.approx(target["residual"], abs=1e-14)
    assert found["residual_history"] == pytest.approx(histories[1], abs=1e-14)


def test_a_direct_solve_has_no_history() -> None:
    rhs = torch.ones(2, 3, dtype=torch.float64)
    found = summary(solve_dense(lambda rows: 2 * rows, rhs))
    assert found["residual_history"] == []
    assert [target["residual_history"] for target in found["targets"]] == [[], []]
