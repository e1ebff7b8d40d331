"""The methods that an experiment compares: those it names, or all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from metaaudit.config.evaluate import CandidateConfig
from metaaudit.config.influence import SOLVERS
from metaaudit.config.learner import FIELD_LEARNERS
from metaaudit.errors import MetaauditError
from metaaudit.fidelity.workbench import Workbench
from metaaudit.methods import METHODS, MethodScores


@dataclass(frozen=True)
class Scored:
    """What a candidate says.

    Attributes:
        candidate: The candidate.
        scores: Its scores.
        seconds: What they cost, were there no cache.
    """

    candidate: CandidateConfig
    scores: MethodScores
    seconds: float


def default_candidates(learner: str) -> list[CandidateConfig]:
    """``task-if`` in each curvature that suits a learner, and every other method."""
    follows_field = learner in FIELD_LEARNERS
    ours = [
        CandidateConfig(
            name=f"task-if {curvature}", influence={"method": "task-if", "curvature": curvature}
        )
        for curvature in SOLVERS
        if (curvature == "jacobian") == follows_field
    ]
    others = [
        CandidateConfig(name=method, influence={"method": method})
        for method in METHODS
        if method != "task-if"
    ]
    return [*ours, *others]


def score_all(
    bench: Workbench, asked: Sequence[CandidateConfig] | None, *, by_instance: bool = False
) -> tuple[list[Scored], list[str]]:
    """Scores of the candidates that are named, for every target, or of all methods.

    Args:
        bench: The objects of the evaluation.
        asked: The candidates that are named.
        by_instance: Whether instances are scored too.

    Returns:
        The scores, and a line for each of all methods that the model or the learner does not allow.

    Raises:
        MetaauditError: One that is named cannot be used.
    """
    if asked is not None:
        return [_scored(bench, one, by_instance) for one in asked], []
    found, left_out = [], []
    for one in default_candidates(bench.config.learner.name):
        try:
            found.append(_scored(bench, one, by_instance))
        except MetaauditError as error:
            left_out.append(f"{one.name} is left out: {error}")
    return found, left_out


def _scored(bench: Workbench, candidate: CandidateConfig, by_instance: bool) -> Scored:
    each = candidate.model_copy(update={"influence": {"targets": "each", **candidate.influence}})
    uses, started = dict(bench.cache.uses), time.perf_counter()
    scores = bench.scores(each, by_instance=by_instance)
    seconds = time.perf_counter() - started
    seconds += sum(
        use.saved_s for label, use in bench.cache.uses.items() if use is not uses.get(label)
    )
    return Scored(candidate, scores, seconds)
