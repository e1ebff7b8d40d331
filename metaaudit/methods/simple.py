"""Rankings that look at the training tasks alone: ``loss``, ``grad-norm`` and ``random``.

They are the same for every target. More is more suspicious, as a positive influence is harmful.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from metaaudit.bilevel import TaskBatch
from metaaudit.finite import check_finite
from metaaudit.manifest import unsolved
from metaaudit.methods.base import Floats, Given, MethodScores
from metaaudit.models import Params, pullback


def by_loss(given: Given) -> MethodScores:
    """The outer loss of a task, and the loss of an instance after adaptation to its task."""
    found = given.gradients
    return _scores(given, found.outer_loss, found.losses, derivative=None)


def by_grad_norm(given: Given) -> MethodScores:
    """The norm of ``D L_k``, and that of an instance's loss gradient at ``theta_k``."""
    norms = given.own.double().norm(dim=1).cpu().numpy()
    instances = _instance_norms(given) if given.by_instance else given.unscored_instances()
    return _scores(given, norms, instances, given.stages.problem.config.influence.derivative)


def at_random(given: Given) -> MethodScores:
    """Standard normal numbers from ``influence.seed``: what a ranking has to beat."""
    rng = np.random.default_rng(given.stages.problem.config.influence.seed)
    task_set = given.train.task_set
    tasks, instances = rng.standard_normal(len(task_set)), rng.standard_normal(task_set.n_instances)
    return _scores(given, tasks, instances, derivative=None)


def _scores(given: Given, tasks: Floats, instances: Floats, derivative: str | None) -> MethodScores:
    told = {**unsolved(given.stages.problem.config), "derivative": derivative}
    return MethodScores(given.same_for_all(tasks), instances, told)


def _instance_norms(given: Given) -> Floats:
    task_set = given.train.task_set
    norms = np.empty(task_set.n_instances)
    with given.stages.stage("instance gradients", len(task_set)) as advance:
        for batch in given.train.batches():
            norms[batch.instances] = _norms(given, batch).double().cpu().numpy()
            advance(len(batch.rows))
    check_finite("instance gradients", task_set, norms)
    return norms


def _norms(given: Given, batch: TaskBatch) -> Tensor:
    """``[batch, n + m]``, one instance of every task at a time: memory stays that of a gradient."""
    objective, theta, data = given.train.objective, given.train.adapted(batch), batch.data
    found = []
    for x, y in data.sets:

        def losses(theta: Params, x: Tensor = x, y: Tensor = y) -> Tensor:
            each: Tensor = vmap(objective.losses)(theta, x, y)
            return each

        values, pull = pullback(losses, theta)
        for index in range(y.shape[1]):
            chosen = torch.zeros_like(values)
            chosen[:, index] = 1.0
            squares = [g.flatten(1).square().sum(1) for g in pull(chosen).values()]
            found.append(torch.stack(squares).sum(0).sqrt())
    return torch.stack(found, dim=1)
