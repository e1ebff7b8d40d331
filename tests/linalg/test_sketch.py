"""Fewer rows in place of many, against the matrix that they stand for."""

from __future__ import annotations

import pytest
import torch

from metaaudit.linalg import sketch


def rows(n: int, size: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, size, generator=generator) * torch.arange(1, size + 1)


def test_few_rows_stay_as_they_are() -> None:
    factor = rows(7)
    found = sketch(factor, 7, factor[:2])
    assert torch.equal(found.rows, factor.double()) and (found.of, found.error) == (7, 0.0)
    assert not found.summed


@pytest.mark.parametrize("n", [100, 2500])  # the second is summed up in several blocks
def test_the_mean_over_seeds_is_the_matrix(n: int) -> None:
    factor = rows(n)
    expected = factor.double().T @ factor.double()
    found = [sketch(factor, 40, factor[:1], seed) for seed in range(200)]
    assert all(one.rows.shape == (40, 6) and one.summed and one.of == n for one in found)
    mean = torch.stack([one.rows.T @ one.rows for one in found]).mean(0)
    # One sketch is off by about 1 / sqrt(40), their mean by 1 / sqrt(40 * 200) = 0.011.
    assert torch.linalg.norm(mean - expected) < 0.03 * torch.linalg.norm(expected)


def test_more_rows_are_nearer_and_the_error_says_how_near() -> None:
    factor, vectors = rows(3000, 20), rows(50, 20)
    products = (factor.double() @ vectors.double().T).square().sum(0)
    errors = []
    for most in (20, 200, 2000):
        found = sketch(factor, most, vectors)
        off = ((found.rows @ vectors.double().T).square().sum(0) - products) / products
        assert found.error == pytest.approx(float(off.square().mean().sqrt()), rel=1e-10)
        errors.append(found.error)
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_vector_without_products_is_no_error() -> None:
    found = sketch(rows(20), 5, torch.zeros(1, 6))
    assert found.error == 0.0


def test_a_seed_gives_the_same_rows() -> None:
    factor = rows(30)
    assert torch.equal(sketch(factor, 5, factor).rows, sketch(factor, 5, factor).rows)
    assert not torch.equal(sketch(factor, 5, factor).rows, sketch(factor, 5, factor, 1).rows)
