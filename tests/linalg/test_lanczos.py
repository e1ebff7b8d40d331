"""Ritz values against eigenvalues, and the damping that they suggest."""

import math

import pytest
import torch

from metaaudit.linalg import Spectrum, Status, cg, lanczos, suggested_damping
from tests.linalg.matrices import SIZE, gaussian, operator

LARGE = 200


@pytest.mark.parametrize("lowest", [0.0, 0.5, -7.0, -50.0])
def test_as_many_steps_as_eigenvalues_find_the_ends_exactly(lowest):
    matrix, matvec = operator(torch.linspace(lowest, 10, SIZE))
    exact = torch.linalg.eigvalsh(matrix)
    found = lanczos(matvec, gaussian(1, SIZE), iterations=10 * SIZE)
    assert found.smallest == pytest.approx(float(exact[0]), rel=1e-10, abs=1e-10)
    assert found.largest == pytest.approx(float(exact[-1]), rel=1e-10)
    assert found.iterations == SIZE
    assert found.magnitude == pytest.approx(max(10, -lowest), rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_ritz_values_lie_inside_and_approach_the_ends(seed):
    matrix, matvec = operator(torch.linspace(-3, 10, LARGE), seed)
    exact = torch.linalg.eigvalsh(matrix)
    found = [lanczos(matvec, matrix, iterations=count, seed=seed) for count in (1, 5, 20, 60)]
    for one in found:
        assert float(exact[0]) - 1e-12 <= one.smallest <= one.largest <= float(exact[-1]) + 1e-12
    for low, high in zip(found[1:], found, strict=False):
        assert low.smallest < high.smallest and low.largest > high.largest
    # The bound of Kuczynski and Wozniakowski: a probability below 1e-9 for 5 percent of the spread.
    assert found[-1].largest > 10 - 0.05 * 13 and found[-1].smallest < -3 + 0.05 * 13


@pytest.mark.parametrize("top", [6, 9])
def test_reorthogonalisation_leaves_no_copies_of_what_has_converged(top):
    """Copies would take the steps that the smallest eigenvalue needs."""
    _, matvec = operator(torch.logspace(0, top, SIZE, dtype=torch.float64))
    found = lanczos(matvec, gaussian(1, SIZE), iterations=SIZE)
    # Rounding is relative to the largest eigenvalue.
    assert found.smallest == pytest.approx(1.0, abs=1e-14 * 10**top)


def test_a_cluster_does_no_harm():
    """Here a single pass of reorthogonalisation would give Ritz values far outside, near 250."""
    cluster = 1 + 1e-9 * torch.arange(40, dtype=torch.float64)
    _, matvec = operator(torch.cat([cluster, torch.tensor([-30.0, 50.0])]))
    found = lanczos(matvec, gaussian(1, 42), iterations=42)
    assert (found.smallest, found.largest) == pytest.approx((-30, 50), rel=1e-12)


def test_rough_products_end_with_the_last_dimension():
    matrix, _ = operator(torch.linspace(-3, 10, SIZE))
    rough = matrix.float()
    found = lanczos(lambda rows: rows.float() @ rough, matrix, iterations=100)
    assert found.iterations == SIZE
    assert (found.smallest, found.largest) == pytest.approx((-3, 10), abs=1e-5)


def test_isolated_eigenvalues_come_after_few_products():
    ends = torch.tensor([-40.0, 100.0])
    matrix, matvec = operator(torch.cat([torch.linspace(0, 1, LARGE), ends]))
    for count in (20, 150):
        found = lanczos(matvec, matrix, iterations=count)
        assert (found.smallest, found.largest) == pytest.approx((-40, 100), rel=1e-12)
        assert found.iterations == count


@pytest.mark.parametrize(
    ("eigenvalues", "steps", "ends"),
    [
        (torch.ones(LARGE), 1, (1.0, 1.0)),
        (torch.zeros(LARGE), 1, (0.0, 0.0)),
        (torch.cat([torch.tensor([-2.0, 3.0, 5.0]), torch.zeros(LARGE - 3)]), 4, (-2.0, 5.0)),
        (torch.tensor([1e-14, 2e-14], dtype=torch.float64).repeat(LARGE // 2), 2, (1e-14, 2e-14)),
    ],
    ids=["identity", "zero", "low rank", "two small ones"],
)
def test_it_stops_where_the_subspace_is_invariant(eigenvalues, steps, ends):
    _, matvec = operator(eigenvalues)
    found = lanczos(matvec, gaussian(1, LARGE))
    assert found.iterations == steps
    assert (found.smallest, found.largest) == pytest.approx(ends, rel=1e-10, abs=1e-12 * ends[1])


def test_one_seed_gives_one_result():
    _, matvec = operator(torch.logspace(-2, 2, LARGE))
    like = gaussian(1, LARGE)
    assert lanczos(matvec, like, iterations=8) == lanczos(matvec, 0 * like, iterations=8, seed=0)
    assert lanczos(matvec, like, iterations=8) != lanczos(matvec, like, iterations=8, seed=1)


def test_products_that_are_not_finite_give_no_numbers():
    found = lanczos(lambda rows: rows * math.inf, gaussian(1, SIZE))
    assert math.isnan(found.smallest) and math.isnan(found.largest)


def indefinite(seed):
    """A random symmetric matrix, its shape of spectrum changing with the seed."""
    matrix = gaussian(LARGE, LARGE, seed=seed)
    lift = (0.0, 10.0, 17.0, -10.0)[seed % 4]  # its eigenvalues lie within about 20 of 0
    return (matrix + matrix.T) / 2 + lift * torch.eye(LARGE, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(20))
def test_the_suggested_damping_makes_a_matrix_positive_definite(seed):
    matrix, rhs = indefinite(seed), gaussian(2, LARGE, seed=seed + 100)
    assert torch.linalg.eigvalsh(matrix)[0] < 0
    before = cg(lambda rows: rows @ matrix, rhs, tolerance=1e-10, max_iterations=1000)
    assert set(before.status) == {Status.NEGATIVE_CURVATURE}
    damping = suggested_damping(lanczos(lambda rows: rows @ matrix, matrix))
    after = cg(
        lambda rows: rows @ matrix + damping * rows, rhs, tolerance=1e-10, max_iterations=1000
    )
    assert after.converged


def test_the_suggested_damping():
    assert suggested_damping(Spectrum(1e-3, 5.0, 30)) == 0.0
    assert suggested_damping(Spectrum(-2.0, 5.0, 30)) == pytest.approx(3.005)
    assert suggested_damping(Spectrum(-2.0, 5.0, 30), shift=1.0) == pytest.approx(2.005)
    assert suggested_damping(Spectrum(-2.0, 5.0, 30), shift=2.1) == 0.0
    assert suggested_damping(Spectrum(-8.0, 5.0, 30)) == pytest.approx(12.008)
    # A matrix of low rank, down to rounding.
    assert suggested_damping(Spectrum(-1e-16, 5.0, 30)) == pytest.approx(5e-3)
