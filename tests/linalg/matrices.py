"""Symmetric matrices with known eigenvalues."""

from __future__ import annotations

import torch

SIZE, N_RHS = 30, 3


def operator(eigenvalues, seed=0):
    """A symmetric matrix with the given eigenvalues, and its products with rows."""
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(gaussian(size, size, seed=seed))
    matrix = basis @ torch.diag(eigenvalues.double()) @ basis.T
    return matrix, lambda vectors: vectors @ matrix


def gaussian(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def right_hand_sides(seed=1):
    return gaussian(N_RHS, SIZE, seed=seed)
