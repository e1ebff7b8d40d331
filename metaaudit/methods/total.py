"""``task-if`` and ``instance-if``, by the total Hessian, and ``dot``, without it."""

from __future__ import annotations

from torch import Tensor

from metaaudit.bilevel import (
    FORMS,
    Adaptation,
    Adjoint,
    AdjointSolver,
    CurvatureScale,
    TaskGradients,
    TotalHessian,
    curvature_scale,
)
from metaaudit.influence import instance_influence, task_influence
from metaaudit.manifest import solver
from metaaudit.methods.base import Floats, Given, MethodScores
from metaaudit.stages import Stages

SCALE_STAGE = "curvature along the adjoint"


def total_influence(given: Given) -> MethodScores:
    """``-(1/N) u . d/d omega D L_k`` with the adjoint ``u`` of every target.

    ``u`` is ``H^-1 D M`` with the configured form of the total Hessian, or ``D M`` for ``dot``.
    """
    return scores_of(given, *_solve(given))


def scores_of(given: Given, adjoint: Adjoint, scale: CurvatureScale | None) -> MethodScores:
    """The influences along the adjoint of every target, and how it was solved for."""
    return MethodScores(
        task_influence(given.own, adjoint.direction),
        along(given, adjoint.mean_direction),
        solver(given.stages.problem.config, adjoint, scale, given.target_ids),
        adjoint.warnings,
    )


def along(given: Given, direction: Tensor) -> Floats:
    """Influence ``[n_instances]`` along an adjoint ``[n_params]``, where instances are scored."""
    if not given.by_instance:
        return given.unscored_instances()
    task_set = given.train.task_set
    found = given.stages.weight_derivatives("instance influence", given.train, direction)
    return instance_influence(found, len(task_set))


def adjoint_solver(
    stages: Stages, train: Adaptation, gradients: TaskGradients
) -> tuple[AdjointSolver, TotalHessian]:
    """The configured solver with the total Hessian, and the exact total Hessian beside it."""
    config = stages.problem.config
    influence = config.influence
    own = stages.tensor(gradients.gradients)
    ekfac = stages.outer_ekfac(train, own) if influence.outer_ekfac else None
    factor = stages.sampled_fisher(train) if influence.sampled_fisher else None
    exact = hessian = TotalHessian(train, team=stages.team)
    with stages.stage("total Hessian"):
        if influence.curvature in FORMS and influence.method != "dot":
            hessian = TotalHessian.of(train, influence.curvature, stages.team)
        solver = AdjointSolver(influence, hessian, own, config.training.weight_decay, ekfac, factor)
    return solver, exact


def _solve(given: Given) -> tuple[Adjoint, CurvatureScale | None]:
    influence = given.stages.problem.config.influence
    solver, exact = adjoint_solver(given.stages, given.train, given.gradients)
    with given.stages.stage("solve"):
        adjoint = solver.solve(given.targets)
    if adjoint.solution is None or influence.curvature in ("exact", "jacobian"):
        return adjoint, None
    with given.stages.stage(SCALE_STAGE):
        return adjoint, curvature_scale(exact, solver.approximation, adjoint.mean_direction)
