"""What one checkpoint says of every task and instance, and the mean over several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.assumptions import unmet
from metaaudit.influence import alignment
from metaaudit.label_stages import LabelEvidence, LabelStages
from metaaudit.manifest import (
    evaluation,
    evaluation_gradient,
    inner,
    inner_warnings,
    outer_stationarity,
)
from metaaudit.methods import METHODS, Given, MethodScores, averaged_scores, comparable, evened
from metaaudit.stages import Stages

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What is computed from a checkpoint.

    Attributes:
        scores: By the configured method.
        self_influence: ``[n_instances]``; ``None`` where it was not asked for.
        outer_loss: ``[n_tasks]``.
        grad_norm: ``[n_tasks]``.
        alignment: ``[n_tasks]``.
        loss: ``[n_instances]``, after adaptation.
        labels: What the learner says of the labels.
        manifest: How it was computed.
        warnings: One line for each thing that did not go as asked.
    """

    scores: MethodScores
    self_influence: Floats | None
    outer_loss: Floats
    grad_norm: Floats
    alignment: Floats
    loss: Floats
    labels: LabelEvidence
    manifest: dict[str, Any]
    warnings: list[str]

    @property
    def method(self) -> str:
        """The method that scored."""
        return str(self.scores.solver["method"])

    @property
    def summary(self) -> dict[str, Any]:
        """What the manifest tells of each of several checkpoints."""
        return {
            **self.manifest["evaluation"],
            "converged": self.manifest["solver"]["converged"],
            "crossfit_steps": self.manifest["crossfit_steps"],
        }


def measure(stages: Stages) -> Measured:
    """Runs all stages of one checkpoint."""
    problem = stages.problem
    config = problem.config
    labels = LabelStages(stages)
    given = Given.of(stages)
    gradients = given.gradients
    found = METHODS[config.influence.method](given)
    unsolved = [
        *(f"training tasks: {line}" for line in inner_warnings(config, given.train)),
        *(f"evaluation tasks: {line}" for line in inner_warnings(config, given.held_out)),
    ]
    own = stages.self_influence(given.train) if config.influence.self_influence else None
    stationarity = outer_stationarity(config, stages.weights.params, gradients)
    losses = gradients.outer_loss.mean(), given.target_gradients.outer_loss.mean()
    shaky = unmet(len(problem.train), stationarity, found.solver, *map(float, losses))
    return Measured(
        scores=found,
        self_influence=own,
        outer_loss=gradients.outer_loss,
        grad_norm=np.linalg.norm(gradients.gradients.astype(np.float64), axis=1),
        alignment=alignment(gradients.gradients),
        loss=gradients.losses,
        labels=LabelEvidence.of(labels, given.train, given.held_out),
        manifest={
            "evaluation": evaluation(problem.evaluation, given.target_gradients),
            "evaluation_gradient": evaluation_gradient(given.target_gradients),
            "outer_gradient": stationarity,
            "inner": inner(config, given.train),
            "solver": found.solver,
            "crossfit_steps": labels.crossfit_steps,
        },
        warnings=[*stages.weights.warnings, *unsolved, *found.warnings, *shaky],
    )


def averaged(each: Sequence[Measured]) -> Measured:
    """The mean over checkpoints; how they were solved for is told of the first.

    How influences are, ``averaged_scores`` says.
    """
    if len(each) == 1:
        return each[0]

    def mean(get: Callable[[Measured], Floats]) -> Floats:
        result: Floats = np.mean([get(one) for one in each], axis=0)
        return result

    first = each[0]
    own = [m.self_influence for m in each if m.self_influence is not None]
    scores = averaged_scores(first.method, [m.scores for m in each])
    warnings = [line for m in each for line in m.warnings]
    return Measured(
        scores=scores,
        self_influence=evened(np.stack(own)).mean(axis=0) if own else None,
        outer_loss=mean(lambda m: m.outer_loss),
        grad_norm=mean(lambda m: m.grad_norm),
        alignment=mean(lambda m: m.alignment),
        loss=mean(lambda m: m.loss),
        labels=LabelEvidence.averaged([m.labels for m in each]),
        manifest={
            **first.manifest,
            "evaluation": {
                name: float(np.mean([m.manifest["evaluation"][name] for m in each]))
                for name in first.manifest["evaluation"]
            },
            "solver": scores.solver,
        },
        warnings=list(dict.fromkeys([*warnings, *scores.warnings])),
    )


def influence_spread(each: Sequence[Measured]) -> Floats | None:
    """Standard deviation ``[n_tasks]`` over checkpoints of the influence on the mean loss."""
    if len(each) == 1:
        return None
    alike, _ = comparable(each[0].method, [m.scores for m in each])
    spread: Floats = alike.mean(axis=2).std(axis=0, ddof=1)
    return spread
