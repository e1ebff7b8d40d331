"""How close approximations come to a reference: depth of a series, form of the total Hessian.

With candidates that differ by ``max_iterations`` alone this is the ablation of Neumann's depth;
with ``curvature: gamma`` beside an exact reference, the price of the constant of Theorem 5.1
(2501.15963).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from metaaudit.config.evaluate import AgreementConfig, CandidateConfig
from metaaudit.fidelity.candidates import Scored, score_all
from metaaudit.fidelity.closeness import Closeness
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.workbench import Workbench
from metaaudit.methods import MethodScores

SOLVES = ("solver", "damping", "iterations", "residual", "status")
SHOWN = ("rank correlation, tasks", "rank correlation, instances", "relative error, tasks")
SERIES = (
    "Neumann's series is taken of the Hessian over 1.1 times its largest Ritz value, so that it "
    "converges wherever every eigenvalue is positive; one that is cut off is used as it stands."
)
SHARED = "Times include the total gradients, which are the same for all."


def run(bench: Workbench, config: AgreementConfig) -> Result:
    """Compares every candidate's task and instance influence with the reference's."""
    targets = bench.config.influence.targets
    asked = [
        one.model_copy(update={"influence": {"targets": targets, **one.influence}})
        for one in (config.reference, *config.candidates)
    ]
    everyone, _ = score_all(bench, asked, by_instance=True)
    reference, *found = everyone
    tasks = [
        Closeness.of(one.scores.task_influence, reference.scores.task_influence) for one in found
    ]
    instances = [
        Closeness.of(one.scores.instance_influence, reference.scores.instance_influence)
        for one in found
    ]
    solves = [(one.candidate.name, one.seconds, *solve(one.scores)) for one in everyone]
    tables = (
        _closeness_table("tasks", config, tasks),
        _closeness_table("instances", config, instances),
        Table(
            "agreement-solves",
            "How each was solved for; the reference comes first",
            ("candidate", "time (s)", *SOLVES),
            solves,
        ),
    )
    return Result(
        config.kind,
        f"How close approximations come to {config.reference.name}",
        tables,
        (_figure(config, tasks, instances),),
        _notes(everyone),
        details={"warnings": {one.candidate.name: list(one.scores.warnings) for one in everyone}},
    )


def solve(scores: MethodScores) -> tuple[Value, ...]:
    """The values of ``SOLVES``: how scores were solved for; ``None`` where nothing is."""
    attempts = scores.solver.get("attempts")
    if not attempts:
        return (None,) * len(SOLVES)
    last = attempts[-1]
    fell_back = last["solver"] == "cg" and any(one["solver"] == "neumann" for one in attempts)
    name = "cg, since neumann diverged" if fell_back else last["solver"]
    return name, last["damping"], last["iterations"], last["residual"], ", ".join(last["status"])


def depths(candidates: Sequence[CandidateConfig]) -> tuple[float, ...] | None:
    """The ``max_iterations`` of candidates that differ by it alone; ``None`` for others."""
    rest = [
        ({k: v for k, v in one.influence.items() if k != "max_iterations"}, one.checkpoints)
        for one in candidates
    ]
    found = [
        float(one.influence["max_iterations"])
        for one in candidates
        if "max_iterations" in one.influence
    ]
    alike = len(found) == len(candidates) > 1 and all(one == rest[0] for one in rest)
    return tuple(found) if alike else None


def _closeness_table(what: str, config: AgreementConfig, found: Sequence[Closeness]) -> Table:
    names = [candidate.name for candidate in config.candidates]
    return Table(
        f"agreement-{what}",
        f"Influence of {what} against {config.reference.name}",
        ("candidate", "rank correlation", "correlation", "relative error", "scale"),
        [(name, *astuple(one)) for name, one in zip(names, found, strict=True)],
    )


def _figure(
    config: AgreementConfig, tasks: Sequence[Closeness], instances: Sequence[Closeness]
) -> Figure:
    terms = depths(config.candidates)
    places: Any = terms or tuple(candidate.name for candidate in config.candidates)
    shown = (
        [one.rank for one in tasks],
        [one.rank for one in instances],
        [one.error for one in tasks],
    )
    # A place has all its values or is left out, so that bars stay where their names are.
    whole = [(x, y) for x, *y in zip(places, *shown, strict=True) if None not in y]
    series = tuple(
        Series(name, tuple(x for x, _ in whole), tuple(float(y[place] or 0.0) for _, y in whole))
        for place, name in enumerate(SHOWN)
    )
    axis = "terms" if terms else "candidate"
    return Figure("agreement", f"Agreement with {config.reference.name}", axis, "value", series)


def _notes(everyone: Sequence[Scored]) -> tuple[str, ...]:
    solves = {
        one.candidate.name: dict(zip(SOLVES, solve(one.scores), strict=True)) for one in everyone
    }
    notes = [SHARED]
    if any("neumann" in str(one["solver"]) for one in solves.values()):
        notes.append(SERIES)
    first, *others = solves
    damping, status = solves[first]["damping"], solves[first]["status"]
    apart = [name for name in others if solves[name]["damping"] not in (None, damping)]
    if apart:
        notes.append(f"Not with the damping of {first}: {', '.join(apart)}.")
    if status not in (None, "converged"):
        notes.append(f"The reference did not converge: {status}.")
    return tuple(notes)
