"""Solvers against dense float64 algebra, and negative controls."""

import itertools

import pytest
import torch

from metaaudit.linalg import (
    LowRankSolver,
    Solution,
    Status,
    cg,
    lanczos,
    neumann,
    solve_dense,
    solve_low_rank,
)
from tests.linalg.matrices import N_RHS, SIZE, gaussian, operator, right_hand_sides

SOLVERS = {
    "cg": lambda matvec, rhs: cg(matvec, rhs, tolerance=1e-12, max_iterations=200),
    "neumann": lambda matvec, rhs: neumann(matvec, rhs, tolerance=1e-12, max_iterations=2000),
    "dense": solve_dense,
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solves_a_positive_definite_system(name):
    matrix, matvec = operator(torch.linspace(0.5, 10, SIZE))
    rhs = right_hand_sides()
    solution = SOLVERS[name](matvec, rhs)
    expected = torch.linalg.solve(matrix, rhs.T).T
    assert solution.converged
    # A relative residual of 1e-12 times the condition number of 20.
    torch.testing.assert_close(solution.value, expected, rtol=1e-10, atol=1e-10)
    assert max(solution.residual) <= 1e-11


@pytest.mark.parametrize("rows", [7, SIZE, 3 * SIZE], ids=["few rows", "square", "many rows"])
def test_low_rank_solve_equals_the_dense_one(rows):
    factor, rhs = gaussian(rows, SIZE, seed=0), right_hand_sides()
    solver = LowRankSolver(factor, 0.3)
    matrix = factor.T @ factor + 0.3 * torch.eye(SIZE, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, rhs.T).T
    for solution in (solver.solve(rhs), solve_low_rank(factor, 0.3, rhs)):
        torch.testing.assert_close(solution.value, expected, rtol=1e-11, atol=1e-11)
        assert solution.converged and solution.solver == "dual"
    torch.testing.assert_close(solver.apply(rhs), expected, rtol=1e-11, atol=1e-11)
    assert len(solver._cholesky) == min(rows, SIZE)


@pytest.mark.parametrize("rows", [7, 3 * SIZE])
def test_low_rank_solve_says_when_the_matrix_is_singular_or_rough(rows):
    alike = torch.ones(rows, SIZE, dtype=torch.float64)
    with pytest.raises(torch.linalg.LinAlgError):
        LowRankSolver(alike, 1e-30)
    rough = solve_low_rank(alike, 1e-13, right_hand_sides())
    assert set(rough.status) == {Status.STAGNATED}


@pytest.mark.parametrize("name", ["cg", "neumann"])
def test_too_few_iterations_are_reported(name):
    matrix, matvec = operator(torch.logspace(-2, 2, SIZE))
    solver = {"cg": cg, "neumann": neumann}[name]
    few = solver(matvec, right_hand_sides(), tolerance=1e-8, max_iterations=3)
    assert not few.converged
    assert set(few.status) == {Status.MAX_ITERATIONS}
    assert few.iterations == (3,) * N_RHS
    actual = (right_hand_sides() - few.value @ matrix).norm(dim=1) / right_hand_sides().norm(dim=1)
    assert few.residual == pytest.approx(actual.tolist(), rel=1e-10)
    for row in range(N_RHS):
        assert len(few.history[row]) == 4 and few.history[row][0] == 1.0
        assert few.history[row][-1] == pytest.approx(few.residual[row], rel=1e-10)


def test_cg_reports_negative_curvature():
    _, matvec = operator(torch.linspace(-1, 10, SIZE))
    solution = cg(matvec, right_hand_sides(), tolerance=1e-8, max_iterations=200)
    assert Status.NEGATIVE_CURVATURE in solution.status
    assert bool(solution.value.isfinite().all())


def test_neumann_reports_divergence():
    _, matvec = operator(torch.linspace(-5, 10, SIZE))
    solution = neumann(matvec, right_hand_sides(), tolerance=1e-8, max_iterations=2000)
    assert set(solution.status) == {Status.DIVERGED}


def test_neumann_notices_a_small_negative_eigenvalue():
    _, matvec = operator(torch.cat([torch.tensor([-1e-2]), torch.linspace(1, 10, SIZE - 1)]))
    solution = neumann(matvec, right_hand_sides(), tolerance=1e-8, max_iterations=3000)
    assert set(solution.status) == {Status.DIVERGED}


def test_dense_reports_negative_curvature_and_solves():
    matrix, matvec = operator(torch.linspace(-1, 10, SIZE))
    solution = solve_dense(matvec, right_hand_sides())
    assert set(solution.status) == {Status.NEGATIVE_CURVATURE}
    torch.testing.assert_close(solution.value @ matrix, right_hand_sides())


def test_cg_on_an_indefinite_matrix_has_lowered_the_energy():
    for seed in range(5):
        matrix, matvec = operator(torch.linspace(-3, 10, SIZE), seed)
        rhs = right_hand_sides()
        x = cg(matvec, rhs, tolerance=1e-8, max_iterations=200).value
        energy = ((x @ matrix) * x).sum(1) / 2 - (rhs * x).sum(1)
        assert float(energy.max()) < 0


def test_cg_out_of_iterations_is_not_converged_however_close():
    _, matvec = operator(torch.linspace(0.5, 10, SIZE))
    exact = cg(matvec, right_hand_sides(), tolerance=1e-6, max_iterations=200)
    short = max(exact.iterations) - 1
    stopped = cg(matvec, right_hand_sides(), tolerance=1e-6, max_iterations=short)
    assert 1e-6 < max(stopped.residual) < 1e-5
    assert Status.MAX_ITERATIONS in stopped.status


def test_cg_says_when_the_products_are_too_rough():
    matrix, _ = operator(torch.logspace(-3, 3, SIZE))
    rough = matrix.float()
    solution = cg(
        lambda vectors: vectors.float() @ rough,
        right_hand_sides(),
        tolerance=1e-10,
        max_iterations=5000,
    )
    assert Status.STAGNATED in solution.status
    assert Status.CONVERGED not in solution.status


@pytest.mark.parametrize("lowest", [0.5, -20])
def test_neumann_is_the_truncated_series(lowest):
    matrix, matvec = operator(torch.linspace(lowest, 10, SIZE))
    rhs = right_hand_sides()
    solution = neumann(matvec, rhs, tolerance=1e-30, max_iterations=5)
    # As many Lanczos steps as eigenvalues: the scale is 1.1 times the largest magnitude itself.
    scale = 1.1 * max(10, -lowest)
    step = torch.eye(SIZE, dtype=torch.float64) - matrix / scale
    # An indefinite one stops each row where it diverges.
    assert (set(solution.iterations) == {5}) == (lowest > 0)
    for row, terms in enumerate(solution.iterations):
        series = sum(torch.linalg.matrix_power(step, j) for j in range(terms)) / scale
        torch.testing.assert_close(solution.value[row], rhs[row] @ series, rtol=1e-12, atol=1e-12)


def test_neumann_hands_over_zeros_for_what_is_finished():
    matrix, _ = operator(torch.linspace(0.5, 10, SIZE))
    rhs, seen = right_hand_sides(), []
    rhs[1] = torch.linalg.eigh(matrix)[1][:, -1]  # done first

    def matvec(rows):
        seen.append(rows)
        return rows @ matrix

    solution = neumann(matvec, rhs, tolerance=1e-6, max_iterations=500)
    products = [rows for rows in seen if len(rows) == N_RHS]
    assert solution.converged and solution.iterations[1] < len(products)
    for step, rows in enumerate(products):
        moving = torch.tensor([step < count for count in solution.iterations])
        assert torch.equal(rows.any(dim=1), moving)


@pytest.mark.parametrize("seed", range(5))
def test_neumann_never_takes_too_small_a_scale_for_divergence(seed):
    """Ill-conditioned, and with so many large eigenvalues that one product tells little."""
    eigenvalues = torch.cat([torch.logspace(-4, 4, 480), torch.linspace(0.99e4, 1e4, 20)])
    matrix, matvec = operator(eigenvalues, seed)
    rhs = gaussian(N_RHS, len(matrix), seed=seed + 100)
    solution = neumann(matvec, rhs, tolerance=1e-8, max_iterations=300)
    assert set(solution.status) == {Status.MAX_ITERATIONS}
    assert all(a > b for one in solution.history for a, b in itertools.pairwise(one))
    # Negative control: the bound on the scale is a real one, a single product breaks it.
    assert 2 * 1.1 * lanczos(matvec, rhs, iterations=1).magnitude < 1e4


@pytest.mark.parametrize("name", ["cg", "neumann"])
def test_a_zero_right_hand_side_is_solved_at_once(name):
    _, matvec = operator(torch.linspace(0.5, 10, SIZE))
    rhs = right_hand_sides()
    rhs[1] = 0
    solution = SOLVERS[name](matvec, rhs)
    assert solution.converged and solution.iterations[1] == 0
    assert not solution.value[1].any()


def test_right_hand_sides_do_not_disturb_each_other():
    _, matvec = operator(torch.linspace(0.5, 10, SIZE))
    rhs = right_hand_sides() * torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)[:, None]
    together = cg(matvec, rhs, tolerance=1e-10, max_iterations=100)
    for row in range(N_RHS):
        alone = cg(matvec, rhs[row : row + 1], tolerance=1e-10, max_iterations=100)
        torch.testing.assert_close(together.value[row], alone.value[0], rtol=1e-9, atol=0)
        assert together.iterations[row] == alone.iterations[0]


@pytest.mark.parametrize("solver", [cg, neumann])
def test_each_right_hand_side_has_its_own_history(solver):
    _, matvec = operator(torch.linspace(0.5, 10, SIZE))
    easy = torch.linalg.eigh(matvec(torch.eye(SIZE, dtype=torch.float64)))[1][:, -1]
    rhs = torch.stack([right_hand_sides()[0], torch.zeros_like(easy), easy])
    solution = solver(matvec, rhs, tolerance=1e-6, max_iterations=500)
    for one, count in zip(solution.history, solution.iterations, strict=True):
        assert len(one) == count + 1
    assert solution.history[1] == (0.0,)
    assert solution.iterations[2] < solution.iterations[0]
    assert max(one[-1] for one in solution.history) <= 1e-6 < solution.history[0][-2]
    alone = solver(matvec, rhs[:1], tolerance=1e-6, max_iterations=500)
    assert solution.history[0] == pytest.approx(alone.history[0], rel=1e-8)
    assert solution.worst_history == solution.history[0]


def test_a_direct_solve_has_an_empty_history_for_each_right_hand_side():
    _, matvec = operator(torch.linspace(0.5, 10, SIZE))
    solution = solve_dense(matvec, right_hand_sides())
    assert solution.history == ((),) * N_RHS and solution.worst_history == ()


def test_the_worst_history_counts_finished_ones_with_their_last():
    histories = ((1.0, 0.5, 0.3), (1.0, 0.7), (0.0,), (1.0, float("nan"), 0.4, 0.2))
    few = Solution(torch.zeros(4, 1), (), (), (), histories, "any")
    assert few.worst_history == pytest.approx((1.0, float("nan"), 0.7, 0.7), nan_ok=True)
