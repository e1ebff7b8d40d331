"""Solvers against dense float64 algebra, and negative controls."""

import pytest
import torch

from metaaudit.linalg import Status, cg, largest_eigenvalue, neumann, solve_dense, solve_low_rank

SIZE, N_RHS = 30, 3


def operator(eigenvalues, seed=0):
    """A symmetric matrix with the given eigenvalues, and its products with rows."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64))
    matrix = basis @ torch.diag(eigenvalues.double()) @ basis.T
    return matrix, lambda vectors: vectors @ matrix


def right_hand_sides(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N_RHS, SIZE, generator=generator, dtype=torch.float64)


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


def test_low_rank_solve_equals_the_dense_one():
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(7, SIZE, generator=generator, dtype=torch.float64)
    rhs = right_hand_sides()
    solution = solve_low_rank(factor, 0.3, rhs)
    matrix = factor.T @ factor + 0.3 * torch.eye(SIZE, dtype=torch.float64)
    torch.testing.assert_close(
        solution.value, torch.linalg.solve(matrix, rhs.T).T, rtol=1e-11, atol=1e-11
    )
    assert solution.converged and solution.solver == "dual"


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
    assert len(few.history) == 4 and few.history[0] == 1.0


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


def test_neumann_is_the_truncated_series():
    matrix, matvec = operator(torch.linspace(0.5, 10, SIZE))
    rhs = right_hand_sides()
    solution = neumann(matvec, rhs, tolerance=1e-30, max_iterations=5)
    scale = 1.1 * largest_eigenvalue(matvec, rhs)
    step = torch.eye(SIZE, dtype=torch.float64) - matrix / scale
    series = sum(torch.linalg.matrix_power(step, j) for j in range(5)) / scale
    torch.testing.assert_close(solution.value, rhs @ series, rtol=1e-12, atol=1e-12)


def test_largest_eigenvalue():
    _, matvec = operator(torch.cat([torch.linspace(0, 5, SIZE - 1), torch.tensor([50.0])]))
    assert largest_eigenvalue(matvec, right_hand_sides()) == pytest.approx(50, rel=1e-10)


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
