"""What the manifest says of a solve."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from metaaudit.bilevel import Adjoint, Attempt
from metaaudit.config.influence import InfluenceConfig
from metaaudit.linalg import Sketch, Solution, Spectrum, Status, cg, solve_dense
from metaaudit.manifest import solver


def summary(solution: Solution, *earlier: Attempt, spectrum: Spectrum | None = None) -> dict:
    config = SimpleNamespace(
        influence=InfluenceConfig(), training=SimpleNamespace(weight_decay=0.005)
    )
    names = [f"eval-{row}" for row in range(len(solution.status))]
    attempts = (*earlier, Attempt(solution, 0.1))
    return solver(config, Adjoint(solution.value, attempts, spectrum), None, names)


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


def test_every_attempt_is_told_and_the_last_one_counts() -> None:
    value, nan = torch.zeros(2, 3, dtype=torch.float64), float("nan")
    lost = Solution(
        value,
        status=(Status.DIVERGED, Status.CONVERGED),
        residual=(nan, 1e-9),
        iterations=(2, 1),
        history=((1.0, float("inf"), nan), (1.0, 1e-9)),
        solver="neumann",
    )
    solved = cg(lambda rows: rows, value + 1, tolerance=1e-9, max_iterations=10)
    spectrum = Spectrum(-0.5, 4.0, 30)
    found = summary(solved, Attempt(lost, 0.02), spectrum=spectrum)
    assert found["attempts"] == [
        {
            "solver": "neumann",
            "damping": 0.02,
            "status": ["converged", "diverged"],
            "iterations": 2,
            "residual": None,
            "residual_history": [1.0, None, None],
        },
        {
            "solver": "cg",
            "damping": 0.1,
            "status": ["converged"],
            "iterations": 1,
            "residual": 0.0,
            "residual_history": [1.0, 0.0],
        },
    ]
    assert (found["solver"], found["damping"], found["converged"]) == ("cg", 0.1, True)
    assert found["smallest_ritz"] == -0.5
    json.dumps(found, allow_nan=False)


def test_a_sketch_is_told_where_there_is_one() -> None:
    rhs = torch.ones(2, 3, dtype=torch.float64)
    solution = solve_dense(lambda rows: 2 * rows, rhs)
    config = SimpleNamespace(
        influence=InfluenceConfig(), training=SimpleNamespace(weight_decay=0.005)
    )
    for of, expected in ((2, None), (7, {"rows": 2, "of": 7, "error": 0.25})):
        attempts = (Attempt(solution, 0.1),)
        adjoint = Adjoint(solution.value, attempts, sketch=Sketch(rhs, of, 0.25))
        assert solver(config, adjoint, None, ["a", "b"])["sketch"] == expected
