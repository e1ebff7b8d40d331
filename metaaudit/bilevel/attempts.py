"""How well the adjoint was solved, and what to do where it was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metaaudit.linalg import Solution, Spectrum, Status, suggested_damping

ADVICE = {
    Status.MAX_ITERATIONS: "raise influence.damping or influence.max_iterations",
    Status.NEGATIVE_CURVATURE: "raise influence.damping",
    Status.INDEFINITE_PRECONDITIONER: "use influence.preconditioner: none",
    Status.STAGNATED: "raise influence.damping, or use compute.dtype: float64",
    Status.DIVERGED: "raise influence.damping",
}


@dataclass(frozen=True)
class Attempt:
    """One solve of all targets.

    Attributes:
        solution: What it gave.
        damping: With what damping.
    """

    solution: Solution
    damping: float


def warnings_of(
    attempts: Sequence[Attempt], spectrum: Spectrum | None, weight_decay: float
) -> tuple[str, ...]:
    """One line for each thing that did not go as asked.

    Args:
        attempts: The solves in their order; the last one counts.
        spectrum: Ritz values of the Hessian without shift, where they were looked for.
        weight_decay: Outer L2 weight ``delta``, which the damping is added to.
    """
    last, first = attempts[-1], attempts[0]
    instead = "; solved by CG instead" if last.solution.solver == "cg" else ""
    found = [
        f"Neumann diverged (relative residual {max(one.solution.residual):.1e} after "
        f"{max(one.solution.iterations)} terms: an eigenvalue is negative){instead}"
        for one in attempts
        if one is not last and one.solution.solver == "neumann"
    ]
    if spectrum and last.damping > first.damping:
        found.append(
            "the Hessian has negative eigenvalues (smallest Ritz value "
            f"{spectrum.smallest:.2g}): damping was raised from {first.damping:.2g} to "
            f"{last.damping:.2g}"
        )
    if not last.solution.converged:
        found.append(_not_converged(last, spectrum, weight_decay))
    return tuple(found)


def _not_converged(attempt: Attempt, spectrum: Spectrum | None, delta: float) -> str:
    solution = attempt.solution
    left = sorted({status for status in solution.status if status is not Status.CONVERGED})
    count = sum(status is not Status.CONVERGED for status in solution.status)
    advice = "; ".join(dict.fromkeys(ADVICE[status] for status in left))
    if Status.NEGATIVE_CURVATURE in left and spectrum:
        needed = attempt.damping + suggested_damping(spectrum, delta + attempt.damping)
        advice += f" to {needed:.2g}, since the smallest Ritz value is {spectrum.smallest:.2g}"
    return (
        f"{solution.solver} did not converge for {count} of {len(solution.status)} targets "
        f"({', '.join(left)}; worst relative residual {max(solution.residual):.1e}): {advice}"
    )
