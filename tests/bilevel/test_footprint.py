"""Memory is counted from the making of a tensor to its end."""

from __future__ import annotations

import torch
from torch.func import grad, vmap

from metaaudit.bilevel import peak_bytes

FLOAT = 4


def test_the_peak_is_of_what_is_there_at_once() -> None:
    def compute() -> None:
        for _ in range(3):
            a = torch.zeros(1000)
            b = a + 1  # 2,000 numbers are there
            del a
            c = b[:500]  # a view of what is counted already
            del b, c

    assert peak_bytes(compute) == 2000 * FLOAT


def test_what_is_kept_for_the_reverse_pass_counts() -> None:
    x = torch.ones(100, requires_grad=True)

    def layers(count: int) -> None:
        y = x
        for _ in range(count):
            y = y.exp()
        y.sum().backward()

    few, many = (peak_bytes(lambda count=count: layers(count)) for count in (4, 24))
    assert many - few == 20 * 100 * FLOAT


def test_it_sees_into_function_transforms() -> None:
    x = torch.ones(8, 100)
    found = peak_bytes(lambda: vmap(grad(lambda row: row.exp().exp().sum()))(x))
    assert found >= 2 * 800 * FLOAT


def test_nothing_is_counted_of_what_was_there_before() -> None:
    x = torch.zeros(10_000)
    assert peak_bytes(lambda: x.add_(1)) <= 10_000 * FLOAT
