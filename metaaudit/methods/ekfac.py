"""``ekfac-if``: influence by EK-FAC, which does not differentiate the adaptation."""

from __future__ import annotations

from dataclasses import replace

from metaaudit.bilevel import AdjointSolver, TotalHessian, curvature_scale
from metaaudit.methods.base import Given, MethodScores
from metaaudit.methods.partial import partial
from metaaudit.methods.pooled_ekfac import pooled_ekfac
from metaaudit.methods.total import scores_of


def ekfac_influence(given: Given) -> MethodScores:
    """That of ``direct-if`` with EK-FAC of the pooled query instances for the Hessian.

    The queries of all tasks are taken for one data set, each instance at the parameters adapted to
    its task (Grosse et al., 2023, for a model that is trained once).
    """
    given = partial(given)
    stages, config = given.stages, given.stages.problem.config
    chosen = {"method": "task-if", "curvature": "ekfac"}
    hessian, delta = TotalHessian(given.train), config.training.weight_decay
    solver = AdjointSolver(
        config.influence.model_copy(update=chosen),
        hessian,
        given.own,
        delta,
        pooled_ekfac(stages, given.train),
    )
    with stages.stage("solve"):
        adjoint = solver.solve(given.targets)
        scale = curvature_scale(hessian, solver.approximation, adjoint.mean_direction)
    scores = scores_of(given, adjoint, scale)
    told = {**scores.solver, "derivative": None, "curvature": "partial-ekfac"}
    return replace(scores, solver=told)
