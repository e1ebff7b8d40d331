"""The ends of a symmetric operator's spectrum, by the Lanczos method."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metaaudit.linalg.solution import MatVec

# A residual this much smaller than the products is rounding: the subspace is invariant.
BREAKDOWN = 1e-12
DAMPING_MARGIN, DAMPING_FRACTION = 1.5, 1e-3


@dataclass(frozen=True)
class Spectrum:
    """Extreme Ritz values of an operator.

    Ritz values lie inside the spectrum: ``smallest`` bounds the smallest eigenvalue from above, and
    ``largest`` the largest one from below.

    Attributes:
        smallest: Smallest Ritz value; not a number where a product was not finite.
        largest: Largest Ritz value; not a number where a product was not finite.
        iterations: Products with the operator.
    """

    smallest: float
    largest: float
    iterations: int

    @property
    def magnitude(self) -> float:
        """The largest magnitude of a Ritz value."""
        return max(abs(self.smallest), abs(self.largest))


def lanczos(matvec: MatVec, size_like: Tensor, *, iterations: int = 30, seed: int = 0) -> Spectrum:
    """Runs Lanczos from a random start, with full reorthogonalisation.

    No vector within reach of as many products has a larger Rayleigh quotient, that of power
    iteration included, and both ends come at once. For ``n`` eigenvalues in ``[a, b]``, ``largest``
    falls short of ``b`` by more than ``e (b - a)`` with a probability of at most
    ``1.648 sqrt(n) exp(-sqrt(e) (2 k - 1))`` after ``k`` products, whatever the eigenvalues
    (Kuczynski and Wozniakowski, 1992); likewise ``smallest``. It stops early, without harm, where
    the subspace is invariant.

    Args:
        matvec: Applies the operator to the rows of ``[1, size]``.
        size_like: Any ``[n, size]`` tensor on the right device.
        iterations: Bound on the products with the operator, at least 1; ``[iterations, size]``
            numbers are kept.
        seed: Seed of the starting vector.
    """
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(1, size_like.shape[1], generator=generator, dtype=torch.float64)
    vector = vector.to(size_like.device)
    vector /= vector.norm()
    basis, scale = vector, 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        product = matvec(vector).double()
        diagonal.append(float((vector * product).sum()))
        scale = max(scale, float(product.norm()))
        if not math.isfinite(scale):
            return Spectrum(math.nan, math.nan, len(diagonal))
        for _ in range(2):  # one pass leaves rounding that grows, two do not
            product = product - (product @ basis.T) @ basis
        left = float(product.norm())
        if len(diagonal) == iterations or left <= BREAKDOWN * scale:
            break
        beside.append(left)
        vector = product / left
        basis = torch.cat([basis, vector])
    triangle = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    triangle.diagonal(-1).copy_(torch.tensor(beside, dtype=torch.float64))
    values = torch.linalg.eigvalsh(triangle)  # reads the lower triangle
    return Spectrum(float(values[0]), float(values[-1]), len(diagonal))


def suggested_damping(spectrum: Spectrum, shift: float = 0.0) -> float:
    """What to add to an operator so that it is safely positive definite.

    ``1.5`` times the magnitude of the smallest Ritz value, which bounds the smallest eigenvalue
    from above only, and a thousandth of the largest magnitude, so that the condition number stays
    near a thousand; less the shift. 0 where the smallest Ritz value plus the shift is positive: an
    eigenvalue that Lanczos has not met may still be negative then.

    Args:
        spectrum: That of the operator without the shift.
        shift: What is added to the operator anyway, not negative.
    """
    if spectrum.smallest + shift > 0:
        return 0.0
    safe = -DAMPING_MARGIN * spectrum.smallest + DAMPING_FRACTION * spectrum.magnitude
    return safe - shift
