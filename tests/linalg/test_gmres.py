"""GMRES on matrices that are not symmetric, and where it stops."""

import pytest
import torch

from metaaudit.linalg import Status, gmres, solve_general
from metaaudit.linalg.gmres import RESTART
from tests.linalg.matrices import N_RHS, SIZE, gaussian, right_hand_sides

LIMITS = {"tolerance": 1e-10, "max_iterations": 500}


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


def test_restarts_and_still_converges():
    size = 3 * RESTART
    matrix = 2 * torch.eye(size, dtype=torch.float64) + gaussian(size, size) * (1.6 / size**0.5)
    rhs = gaussian(2, size, seed=4)
    solution = gmres(lambda rows: rows @ matrix.T, rhs, tolerance=1e-9, max_iterations=2000)
    assert solution.converged
    assert max(solution.iterations) > RESTART
    assert all(
        len(one) == n + 1 for one, n in zip(solution.history, solution.iterations, strict=True)
    )
    expected = torch.linalg.solve(matrix, rhs.T).T
    torch.testing.assert_close(solution.value, expected, rtol=1e-6, atol=1e-6)


def test_a_rotation_that_defeats_short_cycles_is_reported_as_stagnation():
    size = RESTART + 10
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
