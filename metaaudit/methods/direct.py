"""``direct-if``: influence that does not differentiate the adaptation."""

from __future__ import annotations

from dataclasses import replace

from metaaudit.bilevel import AdjointSolver, TotalHessian
from metaaudit.methods.base import Given, MethodScores
from metaaudit.methods.partial import partial
from metaaudit.methods.pooled_ekfac import pooled_ekfac
from metaaudit.methods.total import scores_of


def direct_influence(given: Given) -> MethodScores:
    """``-(1/N) u . d/d omega`` of partial gradients at the adapted parameters.

    ``u = H^-1 d_theta L_t(theta_t)`` with ``H`` the mean over training tasks of ``d^2_theta
    L_k(theta_k)``, plus outer L2 weight and damping, which the keys of ``influence`` for an exact
    Hessian solve (``partial`` says what becomes of each derivative). It holds for learners whose
    meta-parameters are not the network's own too: all is in the network's parameters.
    """
    given = partial(given)
    stages, config = given.stages, given.stages.problem.config
    influence = config.influence.model_copy(update={"method": "task-if", "curvature": "exact"})
    ekfac = pooled_ekfac(stages, given.train) if influence.preconditioner == "ekfac" else None
    hessian, delta = TotalHessian(given.train), config.training.weight_decay
    with stages.stage("solve"):
        adjoint = AdjointSolver(influence, hessian, given.own, delta, ekfac).solve(given.targets)
    scores = scores_of(given, adjoint, None)
    told = {**scores.solver, "derivative": None, "curvature": "partial-hessian"}
    return replace(scores, solver=told)
