"""What one checkpoint says of every task and instance, and the mean over several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metaaudit.bilevel import (
    FORMS,
    Adaptation,
    Adjoint,
    AdjointSolver,
    CurvatureScale,
    Implicit,
    TaskGradients,
    TotalHessian,
    curvature_scale,
)
from metaaudit.influence import alignment, instance_influence, task_influence
from metaaudit.label_stages import LabelStages
from metaaudit.labelnoise import Evidence, mean_probabilities
from metaaudit.manifest import evaluation, inner, inner_warnings, outer_stationarity, solver
from metaaudit.stages import Stages, check_finite

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What is computed from a checkpoint.

    Attributes:
        task_influence: ``[n_tasks, n_targets]``.
        instance_influence: ``[n_instances]``, in the task set's order of instances.
        self_influence: ``[n_instances]``; ``None`` where it was not asked for.
        outer_loss: ``[n_tasks]``.
        grad_norm: ``[n_tasks]``.
        alignment: ``[n_tasks]``.
        loss: ``[n_instances]``, after adaptation.
        evidence: What the learner says of the training labels.
        trusted_evidence: What it says of the labels of the evaluation tasks.
        manifest: How it was computed.
        warnings: One line for each thing that did not go as asked.
    """

    task_influence: Floats
    instance_influence: Floats
    self_influence: Floats | None
    outer_loss: Floats
    grad_norm: Floats
    alignment: Floats
    loss: Floats
    evidence: Evidence
    trusted_evidence: Evidence
    manifest: dict[str, Any]
    warnings: list[str]

    @property
    def summary(self) -> dict[str, Any]:
        """What the manifest tells of each of several checkpoints."""
        return {
            **self.manifest["evaluation"],
            "converged": self.manifest["solver"]["converged"],
            "crossfit_steps": self.manifest["crossfit_steps"],
        }


def measure(stages: Stages, targets: list[str]) -> Measured:
    """Runs all stages of one checkpoint.

    Args:
        stages: The stages.
        targets: Ids of the evaluation targets.
    """
    problem = stages.problem
    config = problem.config
    labels = LabelStages(stages)
    train = stages.training_adaptation()
    gradients = stages.gradients("gradients", train)
    if isinstance(train, Implicit):
        train = train.with_gradients(stages.tensor(gradients.gradients))
    held_out = stages.evaluation_adaptation()
    target_gradients = stages.gradients("evaluation gradients", held_out)
    adjoint, scale = _solve(stages, train, gradients, target_gradients)
    own = stages.tensor(gradients.gradients)
    unsolved = [
        *(f"training tasks: {line}" for line in inner_warnings(config, train)),
        *(f"evaluation tasks: {line}" for line in inner_warnings(config, held_out)),
    ]
    return Measured(
        task_influence=task_influence(own, adjoint.direction),
        instance_influence=_instances(stages, train, adjoint),
        self_influence=stages.self_influence(train) if config.influence.self_influence else None,
        outer_loss=gradients.outer_loss,
        grad_norm=np.linalg.norm(gradients.gradients.astype(np.float64), axis=1),
        alignment=alignment(gradients.gradients),
        loss=gradients.losses,
        evidence=labels.evidence(problem.train, train),
        trusted_evidence=labels.evidence(problem.evaluation, held_out),
        manifest={
            "evaluation": evaluation(problem.evaluation, target_gradients),
            "outer_gradient": outer_stationarity(config, stages.weights.params, gradients),
            "inner": inner(config, train),
            "solver": solver(config, adjoint, scale, targets),
            "crossfit_steps": labels.crossfit_steps,
        },
        warnings=[*stages.weights.warnings, *unsolved, *adjoint.warnings],
    )


def averaged(each: Sequence[Measured]) -> Measured:
    """The mean over checkpoints; how they were solved for is told of the first.

    Influences on one evaluation task are brought to one spread over training tasks first, lest the
    checkpoint with the largest ones decide alone.
    """
    if len(each) == 1:
        return each[0]

    def mean(get: Callable[[Measured], Floats]) -> Floats:
        result: Floats = np.mean([get(one) for one in each], axis=0)
        return result

    first = each[0]
    own = [m.self_influence for m in each if m.self_influence is not None]
    units = [_unit(m.trusted_evidence) for m in each]
    return Measured(
        task_influence=_evened(np.stack([m.task_influence for m in each])).mean(axis=0),
        instance_influence=_evened(np.stack([m.instance_influence for m in each])).mean(axis=0),
        self_influence=_evened(np.stack(own)).mean(axis=0) if own else None,
        outer_loss=mean(lambda m: m.outer_loss),
        grad_norm=mean(lambda m: m.grad_norm),
        alignment=mean(lambda m: m.alignment),
        loss=mean(lambda m: m.loss),
        evidence=_mean_evidence([m.evidence for m in each], units),
        trusted_evidence=_mean_evidence([m.trusted_evidence for m in each], units),
        manifest={
            **first.manifest,
            "evaluation": {
                name: float(np.mean([m.manifest["evaluation"][name] for m in each]))
                for name in first.manifest["evaluation"]
            },
            "solver": {
                **first.manifest["solver"],
                "converged": all(m.manifest["solver"]["converged"] for m in each),
            },
        },
        warnings=list(dict.fromkeys(line for m in each for line in m.warnings)),
    )


def influence_spread(each: Sequence[Measured]) -> Floats | None:
    """Standard deviation ``[n_tasks]`` over checkpoints of the influence on the mean loss."""
    if len(each) == 1:
        return None
    evened = _evened(np.stack([m.task_influence for m in each]))
    spread: Floats = evened.mean(axis=2).std(axis=0, ddof=1)
    return spread


def _evened(influence: Floats) -> Floats:
    """``[n_checkpoints, n, ...]``, scaled so that all checkpoints have one spread over ``n``.

    The spread is the median absolute deviation, which an outlier does not widen to hide in it.
    """
    spread = np.abs(influence - np.median(influence, axis=1, keepdims=True))
    spread = np.median(spread, axis=1, keepdims=True)
    usual = spread.mean(axis=0, keepdims=True)
    evened: Floats = influence * np.divide(
        usual, spread, out=np.ones_like(spread), where=spread > 0
    )
    return evened


def _unit(trusted: Evidence) -> float:
    """What is usual of a signal without a natural scale, which differs between checkpoints."""
    return 1.0 if trusted.other is None else float(np.median(np.abs(trusted.other))) or 1.0


def _mean_evidence(each: Sequence[Evidence], units: Sequence[float]) -> Evidence:
    def mean(get: Callable[[Evidence], Floats | None]) -> Floats | None:
        given = [values for one in each if (values := get(one)) is not None]
        return mean_probabilities(given) if given else None

    others = [
        one.other / unit for one, unit in zip(each, units, strict=True) if one.other is not None
    ]
    return Evidence(
        crossfit=mean_probabilities([one.crossfit for one in each]),
        adapted=mean_probabilities([one.adapted for one in each]),
        left_out=mean(lambda one: one.left_out),
        other=np.mean(others, axis=0) if others else None,
    )


def _solve(
    stages: Stages, train: Adaptation, gradients: TaskGradients, targets: TaskGradients
) -> tuple[Adjoint, CurvatureScale | None]:
    config = stages.problem.config
    influence = config.influence
    rhs = stages.tensor(targets.gradients).double()
    if influence.targets == "mean":
        rhs = rhs.mean(dim=0, keepdim=True)
    solver, exact = adjoint_solver(stages, train, gradients)
    with stages.stage("solve"):
        adjoint = solver.solve(rhs)
        if adjoint.solution is None or influence.curvature in ("exact", "jacobian"):
            return adjoint, None
        return adjoint, curvature_scale(exact, solver.approximation, adjoint.mean_direction)


def adjoint_solver(
    stages: Stages, train: Adaptation, gradients: TaskGradients
) -> tuple[AdjointSolver, TotalHessian]:
    """The configured solver with the total Hessian, and the exact total Hessian beside it."""
    config = stages.problem.config
    influence = config.influence
    own = stages.tensor(gradients.gradients)
    ekfac = stages.outer_ekfac(train, own) if influence.outer_ekfac else None
    exact = hessian = TotalHessian(train)
    with stages.stage("total Hessian"):
        if influence.curvature in FORMS and influence.method != "dot":
            hessian = TotalHessian.of(train, influence.curvature)
        solver = AdjointSolver(influence, hessian, own, config.training.weight_decay, ekfac)
    return solver, exact


def _instances(stages: Stages, train: Adaptation, adjoint: Adjoint) -> Floats:
    task_set = train.task_set
    with stages.stage("instance influence", len(task_set)) as advance:
        found = instance_influence(train, adjoint.mean_direction, advance)
    check_finite("instance influence", task_set, found)
    return found
