"""Conjugate gradients with a preconditioner, with an operator per row, and where they stop."""

import pytest
import torch

from metaaudit.linalg import LowRankSolver, Status, cg
from tests.linalg.matrices import N_RHS, SIZE, gaussian, operator, right_hand_sides

TOLERANCE = {"tolerance": 1e-10, "max_iterations": 500}


def test_the_exact_inverse_as_preconditioner_needs_one_iteration():
    factor, rhs = gaussian(7, SIZE), right_hand_sides()
    exact = LowRankSolver(factor, 0.3)
    solution = cg(
        lambda rows: rows @ factor.T @ factor + 0.3 * rows,
        rhs,
        preconditioner=exact.apply,
        **TOLERANCE,
    )
    assert solution.converged and solution.iterations == (1,) * N_RHS
    torch.testing.assert_close(solution.value, exact.solve(rhs).value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_iterates_are_those_of_the_transformed_system(count):
    """With ``M = L L^T``: plain CG on ``L^-1 A L^-T y = L^-1 b``, and ``x = L^-T y``."""
    matrix, matvec = operator(torch.logspace(-1, 1, SIZE))
    half = gaussian(SIZE, SIZE, seed=5) / SIZE + torch.eye(SIZE, dtype=torch.float64)
    half_inverse = torch.linalg.inv(half)
    rhs, limits = right_hand_sides(), {"tolerance": 1e-30, "max_iterations": count}
    found = cg(
        matvec, rhs, preconditioner=lambda rows: rows @ half_inverse.T @ half_inverse, **limits
    )
    inner = half_inverse @ matrix @ half_inverse.T
    plain = cg(lambda rows: rows @ inner, rhs @ half_inverse.T, **limits)
    torch.testing.assert_close(found.value, plain.value @ half_inverse, rtol=1e-10, atol=1e-10)
    # The residual is that of the system itself, not of the transformed one.
    left = (rhs - found.value @ matrix).norm(dim=1) / rhs.norm(dim=1)
    assert [one[-1] for one in found.history] == pytest.approx(left.tolist(), rel=1e-10)
    assert found.residual == pytest.approx(left.tolist(), rel=1e-10)


def test_a_preconditioner_saves_iterations_on_a_badly_scaled_matrix():
    well, _ = operator(torch.linspace(1, 3, SIZE))
    scale = torch.logspace(-3, 3, SIZE, dtype=torch.float64)
    matrix = scale[:, None] * well * scale
    rhs = right_hand_sides()
    limits = {"tolerance": 1e-10, "max_iterations": 60}
    plain = cg(lambda rows: rows @ matrix, rhs, **limits)
    assert Status.CONVERGED not in plain.status
    jacobi = cg(
        lambda rows: rows @ matrix, rhs, preconditioner=lambda r: r / matrix.diagonal(), **limits
    )
    assert jacobi.converged
    torch.testing.assert_close(
        jacobi.value * scale, torch.linalg.solve(well, (rhs / scale).T).T, rtol=1e-8, atol=1e-8
    )


def test_the_operator_may_differ_from_row_to_row():
    """Also the preconditioner; both see all rows every time, zeros for those that are done."""
    matrices = torch.stack(
        [operator(torch.logspace(0, row, SIZE), seed=row)[0] for row in range(N_RHS)]
    )
    diagonals = matrices.diagonal(dim1=1, dim2=2)
    seen = {"products": [], "preconditioned": []}

    def matvec(rows):
        seen["products"].append(rows)
        return torch.einsum("rij,rj->ri", matrices, rows)

    def preconditioner(rows):
        seen["preconditioned"].append(rows)
        return rows / diagonals

    rhs = right_hand_sides()
    solution = cg(matvec, rhs, preconditioner=preconditioner, **TOLERANCE)
    assert solution.converged and solution.iterations[0] == 1 < max(solution.iterations)
    expected = torch.linalg.solve(matrices, rhs)
    torch.testing.assert_close(solution.value, expected, rtol=1e-8, atol=1e-10)
    assert len(seen["products"]) == max(solution.iterations) + 1  # the last for the true residual
    assert len(seen["preconditioned"]) == max(solution.iterations)
    for calls in (seen["products"][:-1], seen["preconditioned"]):
        for step, rows in enumerate(calls):
            assert rows.shape == rhs.shape
            moving = torch.tensor([step < count for count in solution.iterations])
            assert torch.equal(rows.any(dim=1), moving)


@pytest.mark.parametrize("factor", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_preconditioner_that_is_not_positive_ends_its_row_alone(factor):
    matrix, matvec = operator(torch.linspace(0.5, 10, SIZE))
    signs = torch.tensor([1.0, factor, 1.0], dtype=torch.float64)[:, None]

    def preconditioner(rows):
        return torch.where(rows == 0, 0.0, signs * rows)

    rhs = right_hand_sides()
    solution = cg(matvec, rhs, preconditioner=preconditioner, **TOLERANCE)
    assert solution.status == (
        Status.CONVERGED,
        Status.INDEFINITE_PRECONDITIONER,
        Status.CONVERGED,
    )
    assert solution.history[1] == (1.0,) and solution.residual[1] == 1.0
    assert not solution.value[1].any()
    torch.testing.assert_close(
        solution.value[::2], torch.linalg.solve(matrix, rhs.T).T[::2], rtol=1e-9, atol=1e-9
    )


def test_a_preconditioner_found_indefinite_later_keeps_the_last_iterate():
    matrix, matvec = operator(torch.linspace(0.5, 10, SIZE))
    indefinite, preconditioner = operator(torch.linspace(-1, 5, SIZE), seed=3)
    rhs = right_hand_sides()
    solution = cg(matvec, rhs, preconditioner=preconditioner, **TOLERANCE)
    assert set(solution.status) == {Status.INDEFINITE_PRECONDITIONER}
    assert max(solution.iterations) > 0
    left = rhs - solution.value @ matrix
    assert solution.residual == pytest.approx((left.norm(dim=1) / rhs.norm(dim=1)).tolist())
    assert float(((left @ indefinite) * left).sum(1).max()) <= 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_end_their_row_alone(bad):
    matrix, matvec = operator(torch.linspace(0.5, 10, SIZE))
    rhs = right_hand_sides()
    expected = torch.linalg.solve(matrix, rhs.T).T
    rhs[1, 4] = bad
    products = []

    def counted(rows):
        products.append(rows)
        return matvec(rows)

    of_rhs = cg(counted, rhs, **TOLERANCE)
    assert not any(bool(rows[1].any()) for rows in products[:-1])
    rhs = right_hand_sides()
    spoiled = torch.tensor([0.0, bad, 0.0], dtype=torch.float64)[:, None]
    of_operator = cg(
        lambda rows: torch.where(rows == 0, 0.0, matvec(rows) + spoiled), rhs, **TOLERANCE
    )
    for solution in (of_rhs, of_operator):
        assert bool(solution.value[1].isnan().all())
        assert solution.status == (Status.CONVERGED, Status.DIVERGED, Status.CONVERGED)
        torch.testing.assert_close(solution.value[::2], expected[::2], rtol=1e-9, atol=1e-9)
