"""``trak``: the model linearised in randomly projected gradients (Park et al., 2023).

With ``f_k`` the mean query margin of a task, ``phi_k = P^T D f_k`` its projected total gradient,
and ``q_k`` the mean over its queries of ``1 - p``, the probability of the other classes::

    I = - (1/N) q_k phi_t . K^-1 phi_k        K = (1/N) sum_k phi_k phi_k^T + lambda I

which is the influence on the target's margin, not on its loss, its sign turned so that positive =
harmful. Without the ``lambda`` it is the paper's score times minus one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metaaudit.bilevel import Adaptation, Advance
from metaaudit.bilevel.adjoint import auto_damping
from metaaudit.cache import Arrays
from metaaudit.curvature import weights_hash
from metaaudit.errors import ConfigError
from metaaudit.finite import check_finite, check_gradients
from metaaudit.influence import task_influence
from metaaudit.inputs.task_set import TaskSet
from metaaudit.keeping import Kept
from metaaudit.linalg import LowRankSolver
from metaaudit.manifest import unsolved
from metaaudit.methods.base import Factored, Floats, Given, MethodScores
from metaaudit.methods.margins import margin_gradients, margin_shares
from metaaudit.methods.projection import Projection
from metaaudit.methods.total import along
from metaaudit.stages import Stages

CACHED = "margin-gradients"


def trak_influence(given: Given) -> MethodScores:
    """TRAK's scores of tasks by one checkpoint, and of instances.

    A query instance has its share of the score of its task. A support instance acts through the
    adaptation: the derivative in its weight of ``-(1/N) u . D L_k`` along TRAK's adjoint
    ``u = -P K^-1 phi_t``, whose loss gradient has ``1 - p`` in it already.

    ``lambda`` is ``influence.damping``; ``auto`` is a tenth of the mean eigenvalue of the first
    part of ``K`` in the span of the features. Every checkpoint has signs of its own.
    """
    stages, influence = given.stages, given.stages.problem.config.influence
    own = _gradients(given, given.train)
    targets = given.of_targets(_gradients(given, given.held_out))
    drawn = int(weights_hash(stages.weights.params)[:16], 16)
    projection = Projection(own.shape[1], influence.trak.dimension, (influence.seed, drawn))
    with stages.stage("TRAK kernel"):
        features = projection.down(own)
        factor = features / len(features) ** 0.5
        damping = (
            auto_damping(factor, len(factor)) if influence.damping == "auto" else influence.damping
        )
        solved = kernel_solve(factor, damping, projection.down(targets))
        products = task_influence(features, solved)
        # Up to the sign this is the adjoint: a margin rises where a loss falls.
        direction = projection.up(solved.mean(dim=0, keepdim=True))[0]
    factored = _factored(given, products, direction)
    told = {"curvature": "trak-kernel", "solver": "direct", "damping": damping}
    return MethodScores(
        factored.task_influence,
        factored.instance_influence,
        {**unsolved(stages.problem.config), **told},
        factored=factored,
    )


def kernel_solve(factor: Tensor, damping: float, rows: Tensor) -> Tensor:
    """``(V^T V + lambda I)^-1`` times rows ``[k, d]``, through the smaller of both dimensions.

    Args:
        factor: ``V [n, d]``, float64.
        damping: ``lambda``.
        rows: ``[k, d]``, float64.

    Raises:
        ConfigError: The kernel is singular.
    """
    n, dimension = factor.shape
    try:
        if dimension > n:
            # Raises for a shift of 0 too: what is out of the span of the features is unbounded.
            return LowRankSolver(factor, _positive(damping)).apply(rows)
        kernel = factor.T @ factor
        kernel.diagonal().add_(damping)
        return torch.cholesky_solve(rows.T, torch.linalg.cholesky(kernel)).T
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise ConfigError(
            "influence.damping",
            f"{damping:.1e} leaves a singular kernel of {dimension} dimensions and {n} tasks",
            "a kernel that can be inverted",
            "give a larger number, or lower influence.trak.dimension",
        ) from None


def _positive(damping: float) -> float:
    if damping > 0:
        return damping
    raise torch.linalg.LinAlgError  # type: ignore[attr-defined]


def margin_stage(stages: Stages, task_set: TaskSet) -> Kept:
    """The stage that computes the gradients of the margins of a task set."""
    stage = stages.named("margin gradients", task_set)
    return Kept(CACHED, stage, stages.gradient_key(task_set))


def _gradients(given: Given, adaptation: Adaptation) -> Tensor:
    stages, task_set = given.stages, adaptation.task_set
    kept = margin_stage(stages, task_set)

    def compute(rows: list[int], advance: Advance) -> Arrays:
        some = adaptation.over(rows)
        found = margin_gradients(some, advance)
        check_gradients(kept.stage, some.task_set, found, some.layout)
        return {"gradients": found}

    return stages.tensor(stages.keeping.by_task(kept, task_set, compute)["gradients"])


def _factored(given: Given, products: Floats, direction: Tensor) -> Factored:
    """Tasks and queries by ``q`` times a product, support instances by a weight of 1."""
    task_set, losses = given.train.task_set, given.gradients.losses
    places = list(task_set.instances())
    owner = np.array([row for row, _, _ in places])
    query = np.array([name == "query" for _, name, _ in places])
    wrong = -np.expm1(-losses[query])  # the loss is -log p
    weights = np.bincount(owner[query], wrong) / task_set.query_sizes
    parts = weights, products, np.where(query, weights[owner], 1.0)
    if not given.by_instance:
        return Factored(*parts, given.unscored_instances())
    with given.stages.stage("query margins", len(task_set)) as advance:
        shares = -margin_shares(given.train, direction, advance) / len(task_set)
    check_finite("query margins", task_set, shares)
    return Factored(*parts, np.where(query, shares, along(given, -direction)))
