"""GMRES on matrices that are not symmetric, and where it stops."""

import sys

import pytest
import torch

from metaaudit.linalg import Status, gmres, solve_general
from tests.linalg.matrices import N_RHS, SIZE, gaussian, right_hand_sides

LIMITS = {"tolerance": 1e-10, "max_iterations": 500}
SHORT = 50


@pytest.fixture
def short_cycles(monkeypatch):
    """No memory for more Krylov vectors than the least."""
    module = sys.modules["metaaudit.linalg.gmres"]
    monkeypatch.setattr(module, "KRYLOV_BYTES", 0)
    assert module.RESTART == SHORT


def rotated(size=SIZE, seed=2):
    """Far from symmetric and indefinite, but well conditioned."""
    matrix = gaussian(size, size, seed=seed)
    matrix = matrix / size**0.5 + torch.diag(torch.linspace(-3, 3, size, dtype=torch.float64))
    return matrix, lambda rows: rows @ matrix.T


def test_equals_a_dense_solve():
    matrix, matvec = rotated()
    rhs = right_hand_sides()
    expected = torch.linalg.solve(matrix, rhs.T).T
    for solution in (gmres(matvec, rhs, **LIMITS), solve_general(matvec, rhs)):
        assert solution.converged
        torch.testing.assert_close(solution.value, expected, rtol=1e-8, atol=1e-9)
        left = (rhs - solution.value @ matrix.T).norm(dim=1) / rhs.norm(dim=1)
        assert solution.residual == pytest.approx(left.tolist(), abs=1e-12)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_iterates_minimise_the_residual_over_the_krylov_space(count):
    matrix, matvec = rotated()
    rhs = right_hand_sides()
    found = gmres(matvec, rhs, tolerance=1e-30, max_iterations=count)
    for row in range(N_RHS):
        krylov = torch.stack(
            [torch.linalg.matrix_power(matrix, j) @ rhs[row] for j in range(count)], 1
        )
        best = torch.linalg.lstsq(matrix @ krylov, rhs[row][:, None]).solution
        left = (rhs[row] - (matrix @ krylov @ best)[:, 0]).norm() / rhs[row].norm()
        assert found.residual[row] == pytest.approx(float(left), rel=1e-8)
        assert found.history[row][-1] == pytest.approx(float(left), rel=1e-8)
        assert found.iterations[row] == count
        assert found.status[row] is Status.MAX_ITERATIONS


def slow(size=3 * SHORT):
    """An operator that takes more than ``SHORT`` products, and right-hand sides."""
    matrix = 2 * torch.eye(size, dtype=torch.float64) + gaussian(size, size) * (1.6 / size**0.5)
    return matrix, lambda rows: rows @ matrix.T, gaussian(2, size, seed=4)


def test_restarts_where_memory_is_short_and_still_converges(short_cycles):
    matrix, matvec, rhs = slow()
    solution = gmres(matvec, rhs, tolerance=1e-9, max_iterations=2000)
    assert solution.converged
    assert max(solution.iterations) > SHORT
    assert all(
        len(one) == n + 1 for one, n in zip(solution.history, solution.iterations, strict=True)
    )
    expected = torch.linalg.solve(matrix, rhs.T).T
    torch.testing.assert_close(solution.value, expected, rtol=1e-6, atol=1e-6)


def test_does_not_restart_where_memory_allows():
    _, matvec, rhs = slow()
    counts = []

    def counting(rows):
        counts.append(1)
        return matvec(rows)

    solution = gmres(counting, rhs, tolerance=1e-9, max_iterations=2000)
    assert solution.converged
    assert len(counts) == max(solution.iterations) + 1  # the residual at the end


def test_a_rotation_that_defeats_short_cycles_is_reported_as_stagnation(short_cycles):
    size = SHORT + 10
    shift = torch.roll(torch.eye(size, dtype=torch.float64), 1, dims=0)
    rhs = torch.zeros(1, size, dtype=torch.float64)
    rhs[0, 0] = 1.0
    solution = gmres(lambda rows: rows @ shift.T, rhs, **LIMITS)
    assert solution.status == (Status.STAGNATED,)
    assert solution.residual[0] == pytest.approx(1.0)


def test_rows_are_solved_as_if_alone():
    _, matvec = rotated()
    rhs = torch.cat([right_hand_sides(), torch.zeros(1, SIZE, dtype=torch.float64)])
    together = gmres(matvec, rhs, **LIMITS)
    assert together.iterations[-1] == 0 and together.residual[-1] == 0.0
    for row in range(N_RHS):
        alone = gmres(matvec, rhs[row : row + 1], **LIMITS)
        torch.testing.assert_close(alone.value[0], together.value[row], rtol=1e-7, atol=1e-8)


def test_what_is_not_finite_is_reported():
    solution = gmres(lambda rows: rows * torch.nan, right_hand_sides(), **LIMITS)
    assert set(solution.status) == {Status.DIVERGED}


def test_a_singular_matrix_has_no_dense_solve():
    matrix = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    with pytest.raises(torch.linalg.LinAlgError):
        solve_general(lambda rows: rows @ matrix, right_hand_sides())


def test_a_small_singular_system_is_reported_as_stagnation():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0], dtype=torch.float64))
    rhs = torch.ones(1, 4, dtype=torch.float64)
    assert gmres(lambda rows: rows @ matrix, rhs, **LIMITS).status == (Status.STAGNATED,)


def test_the_history_ends_with_the_residual():
    matrix, _ = rotated()
    rhs = right_hand_sides()
    single = gmres(lambda rows: (rows.float() @ matrix.T.float()).double(), rhs, **LIMITS)
    for row in range(N_RHS):
        assert single.history[row][-1] == single.residual[row]
        assert len(single.history[row]) == single.iterations[row] + 1


def test_solved_rows_ask_for_no_more_products():
    _, matvec = rotated()
    seen = []

    def recording(rows):
        seen.append((rows.norm(dim=1) > 0).tolist())
        return matvec(rows)

    rhs = torch.stack([torch.zeros(SIZE, dtype=torch.float64), right_hand_sides()[0]])
    gmres(recording, rhs, **LIMITS)
    assert not any(active for active, _ in seen)
