"""A checkpoint without what a plan drops, by influence instead of retraining.

At rest, ``D F = 0``. Taking the weight ``omega`` of the data in ``R`` from 1 to 0 moves that point,
to first order, to::

    lambda + H^-1 sum_{omega in R} d/d omega D F

which for whole tasks is ``lambda + (1/N) H^-1 sum_{k in R} D L_k``. ``H`` is the curvature of the
run, damped and solved as there; of learners that follow a field it is the field's Jacobian.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.func import jvp

from metaaudit.bilevel import (
    FORMS,
    Adaptation,
    Adjoint,
    AdjointSolver,
    TaskBatch,
    TotalHessian,
    over_tasks,
)
from metaaudit.bilevel.field import Field
from metaaudit.cache import FactorCache, cache_folder
from metaaudit.config import Config
from metaaudit.config.influence import InfluenceConfig
from metaaudit.console import Messages
from metaaudit.curvature import Factors
from metaaudit.errors import RunError
from metaaudit.influence import Removal, removed_gradient
from metaaudit.inputs.checkpoints import read_checkpoint, write_checkpoint
from metaaudit.inputs.task_set import TaskSet
from metaaudit.loading import load_weights, prepare
from metaaudit.methods import differentiated
from metaaudit.models import Layout, Params
from metaaudit.pruning import PrunePlan
from metaaudit.runs.saved import SavedRun
from metaaudit.stages import Stages


@dataclass(frozen=True)
class Edited:
    """A checkpoint without some of the data it was trained on.

    Attributes:
        params: The new meta-parameters.
        statistics: Running statistics that the model takes from its checkpoint, as they were.
        metadata: Of the old checkpoint, and what was done to it.
        change: Norm of the change over that of the meta-parameters.
    """

    params: Params
    statistics: Params
    metadata: dict[str, str]
    change: float

    def write(self, path: Path) -> None:
        """Writes a safetensors file.

        Raises:
            MetaauditError: It cannot be written.
        """
        write_checkpoint(path, {**self.params, **self.statistics}, self.metadata)


def edit(run: SavedRun, config: Config, plan: PrunePlan, messages: Messages) -> Edited:
    """The checkpoint of a run without what a plan drops.

    Args:
        run: The run, of one checkpoint.
        config: Its configuration.
        plan: What is dropped: one item at least.
        messages: Told of progress, and of what did not go as asked.

    Raises:
        MetaauditError: The run did not solve with the total Hessian, its data or checkpoint have
            changed, or the solve gave numbers that are not finite.
    """
    if config.influence.method != "task-if":
        raise RunError(
            run.path,
            f"was scored by influence.method: {config.influence.method}, which does not solve with "
            "the total Hessian",
            "method: task-if",
        )
    influence = config.influence
    by_cg = influence.derivative == "implicit" and influence.inner.inverse == "cg"
    if by_cg and plan.drop != "tasks":
        raise RunError(
            run.path,
            "was scored by influence.inner.inverse: cg, which cannot be transposed as single "
            "instances need it",
            "ekfac, ggn or dense",
            "drop whole tasks, or score so",
        )
    stages = _stages(run, config, messages)
    step = removal_step(stages, plan, run.manifest["solver"]["damping"])
    for warning in (*stages.weights.warnings, *step.warnings):
        messages.warn(warning)
    params, model = stages.weights.params, stages.problem.model
    layout, buffers = Layout.of(params), dict(model.module.named_buffers())
    flat, moved = layout.flatten(params).double(), step.direction[0]
    return Edited(
        params=layout.unflatten(flat + moved, params),
        statistics={name: buffers[name] for name in model.running},
        metadata=_metadata(run, config, plan, step),
        change=float(moved.norm() / flat.norm()),
    )


def removal_step(stages: Stages, plan: PrunePlan, damping: float) -> Adjoint:
    """What is added to the meta-parameters, and how it was solved for.

    Args:
        stages: Of the run's configuration and checkpoint.
        plan: What is dropped.
        damping: That the run ended with.
    """
    influence = stages.problem.config.influence
    if influence.curvature != "ekfac":  # whose damping differs from layer to layer
        influence = influence.model_copy(update={"damping": damping})
    return total_step(stages, influence, _removal(stages.problem.train, plan))


def total_step(stages: Stages, influence: InfluenceConfig, removal: Removal) -> Adjoint:
    """``solved_step`` with total gradients.

    Args:
        stages: Of the checkpoint.
        influence: How to solve.
        removal: What goes.
    """
    train, found = differentiated(stages)
    gradients = stages.tensor(found.gradients)
    ekfac = stages.outer_ekfac(train, gradients) if influence.outer_ekfac else None
    return solved_step(stages, influence, train, gradients, removal, ekfac)


def solved_step(
    stages: Stages,
    influence: InfluenceConfig,
    train: Adaptation,
    gradients: Tensor,
    removal: Removal,
    ekfac: Factors | None = None,
) -> Adjoint:
    """``(1/N) H^-1 sum d/d omega D L_k`` over the weights of what goes, and how it was solved for.

    Args:
        stages: Of the checkpoint.
        influence: How to solve.
        train: The training tasks.
        gradients: ``[n_tasks, n_params]``: ``D L_k``.
        removal: What goes.
        ekfac: The total Hessian in the Kronecker eigenbasis, where ``influence`` uses it.
    """
    removed = removed_gradient(train, gradients, removal) / len(train.task_set)
    weight_decay = stages.problem.config.training.weight_decay
    factor = stages.sampled_fisher(train) if influence.sampled_fisher else None
    with stages.stage("solve"):
        hessian = _hessian(train, influence.curvature)
        solver = AdjointSolver(influence, hessian, gradients, weight_decay, ekfac, factor)
        return solver.solve(removed[None].to(gradients.device))


@dataclass(frozen=True)
class Jacobian(TotalHessian):
    """The mean Jacobian of the fields that the tasks follow, not transposed as ``u`` needs it."""

    def _product(self, adaptation: Adaptation, batch: TaskBatch) -> Callable[[Params], Params]:
        assert isinstance(adaptation, Field)  # the schema sees to it

        def summed(params: Params) -> Params:
            fields: Params = over_tasks(adaptation.field, params, batch.data)
            return {name: g.sum(0) for name, g in fields.items()}

        def product(tangent: Params) -> Params:
            found: Params = jvp(summed, (adaptation.params,), (tangent,))[1]
            return found

        return product


def _stages(run: SavedRun, config: Config, messages: Messages) -> Stages:
    """Everything loaded, if it still is what was scored."""
    with messages.stage("load"):
        problem = prepare(config)
        weights = load_weights(problem, config.checkpoints[0])
        network = problem.influence_layers()
    manifest = run.manifest
    if problem.train.content_hash != manifest["data"]["train"]["sha256"]:
        raise _changed(run, "training tasks have")
    if weights.sha256 != manifest["checkpoints"][0]["sha256"]:
        raise _changed(run, "checkpoint has")
    cache = FactorCache(cache_folder(), say=messages.say)
    return Stages.of_checkpoint(problem, weights, cache, messages, network)


def _changed(run: SavedRun, what: str) -> RunError:
    return RunError(
        run.path, f"its {what} changed on disk since it was scored", "the same", "score again"
    )


def _removal(task_set: TaskSet, plan: PrunePlan) -> Removal:
    changed = {item.task_id for item in plan.items}
    ids = task_set.task_ids
    tasks = np.array([task_id in changed for task_id in ids])
    if plan.drop == "tasks":
        return Removal(tasks)
    places = {item.place for item in plan.items}
    marked = [(ids[row], name, index) in places for row, name, index in task_set.instances()]
    return Removal(tasks, np.array(marked))


def _hessian(train: Adaptation, curvature: str) -> TotalHessian:
    if curvature == "jacobian":
        return Jacobian(train, curvature)
    return TotalHessian.of(train, curvature) if curvature in FORMS else TotalHessian(train)


def _metadata(run: SavedRun, config: Config, plan: PrunePlan, step: Adjoint) -> dict[str, str]:
    source = read_checkpoint(config.checkpoints[0])
    places = [item.place for item in plan.items]
    note = {
        "run": plan.run,
        "drop": plan.drop,
        "by": plan.by,
        "removed": [place[0] for place in places] if plan.drop == "tasks" else places,
        "source_sha256": run.manifest["checkpoints"][0]["sha256"],
        "damping": step.damping,
        "converged": step.solution is not None and step.solution.converged,
    }
    # The fingerprint is of the tasks that it was trained on, which is no longer true.
    kept = {name: text for name, text in source.metadata.items() if name != "fingerprint"}
    return {**kept, "edited": json.dumps(note, sort_keys=True)}
