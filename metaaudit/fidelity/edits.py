"""Ways to change a checkpoint to what it would be without some of the training data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from metaaudit.bilevel import Adaptation, Adjoint, total_gradients
from metaaudit.cache import FactorCache
from metaaudit.config.evaluate import CandidateConfig
from metaaudit.editing import solved_step, total_step
from metaaudit.errors import ConfigError
from metaaudit.fidelity.workbench import Workbench
from metaaudit.influence import Removal, weight_gradient
from metaaudit.methods.partial import partial_gradients
from metaaudit.methods.pooled_ekfac import pooled_ekfac
from metaaudit.models import Layout, Params
from metaaudit.stages import Stages

ASCENT_STEPS = 10


@dataclass(frozen=True)
class Step:
    """What is added to the meta-parameters.

    Attributes:
        change: Of those that change.
        warnings: One line for each thing that did not go as asked.
    """

    change: Params
    warnings: tuple[str, ...] = ()

    def added_to(self, params: Params) -> Params:
        """The new meta-parameters, in the precision of the old."""
        return {
            name: (p.double() + self.change[name].to(p.device)).to(p) if name in self.change else p
            for name, p in params.items()
        }


@dataclass(frozen=True)
class Edit:
    """A checkpoint without some of the data.

    Attributes:
        params: Its meta-parameters.
        seconds: Time it took, gradients and solve included, with nothing in the cache.
        warnings: One line for each thing that did not go as asked.
    """

    params: Params
    seconds: float
    warnings: tuple[str, ...]


def edit(bench: Workbench, candidate: CandidateConfig, removal: Removal) -> Edit:
    """Edits the last checkpoint.

    Args:
        bench: The workbench.
        candidate: By what; its method is one of ``EDITS``.
        removal: What goes.

    Raises:
        MetaauditError: It cannot be done so.
    """
    problem = replace(bench.problem, config=bench.configured(candidate))
    network = problem.influence_layers()
    weights, way = bench.weights[-1], EDITS[problem.config.influence.method]
    with tempfile.TemporaryDirectory() as folder:
        cold = FactorCache(Path(folder))
        started = time.perf_counter()
        stages = Stages.of_checkpoint(
            problem, weights, cold, bench.messages, network, f" ({candidate.name})"
        )
        _check(stages, candidate, removal)
        step = way(stages, removal)
        params = step.added_to(weights.params)
        return Edit(params, time.perf_counter() - started, step.warnings)


def by_total_hessian(stages: Stages, removal: Removal) -> Step:
    """``(1/N) H^-1 sum d/d omega D L_k``: the edit of ``metaaudit prune --edit-checkpoint``."""
    solved = total_step(stages, stages.problem.config.influence, removal)
    return _step(Layout.of(stages.weights.params), solved)


def by_partial_hessian(stages: Stages, removal: Removal) -> Step:
    """``by_total_hessian`` with the partial derivatives of ``direct-if``."""
    train, gradients = _partial(stages)
    chosen = {"method": "task-if", "curvature": "exact"}
    influence = stages.problem.config.influence.model_copy(update=chosen)
    ekfac = pooled_ekfac(stages, train) if influence.preconditioner == "ekfac" else None
    return _step(train.layout, solved_step(stages, influence, train, gradients, removal, ekfac))


def by_pooled_ekfac(stages: Stages, removal: Removal) -> Step:
    """``by_partial_hessian`` with the EK-FAC of ``ekfac-if`` for the Hessian."""
    train, gradients = _partial(stages)
    chosen = {"method": "task-if", "curvature": "ekfac"}
    influence = stages.problem.config.influence.model_copy(update=chosen)
    ekfac = pooled_ekfac(stages, train)
    return _step(train.layout, solved_step(stages, influence, train, gradients, removal, ekfac))


def by_ascent(stages: Stages, removal: Removal) -> Step:
    """``ASCENT_STEPS`` steps up the mean loss of what goes, at the rate ``training.lr``.

    Of instances it is the mean of what their weights add to it, as for tasks. Nothing holds the
    rest in place, so that the number of steps decides how much is forgotten.
    """
    rate = stages.problem.config.training.lr
    layout, params = Layout.of(stages.weights.params), stages.weights.params
    start = flat = layout.flatten(params).double()
    with stages.stage("gradient ascent", ASCENT_STEPS) as advance:
        for _ in range(ASCENT_STEPS):
            flat = flat + rate * _uphill(stages, layout.unflatten(flat, params), removal)
            advance(1)
    return Step(layout.split(flat - start))


def _partial(stages: Stages) -> tuple[Adaptation, Tensor]:
    """The training tasks and their partial gradients."""
    adaptation = stages.training_adaptation()
    train, found = partial_gradients(stages, adaptation)
    return train, stages.tensor(found.gradients)


def _step(layout: Layout, solved: Adjoint) -> Step:
    return Step(layout.split(solved.direction[0]), solved.warnings)


def _uphill(stages: Stages, params: Params, removal: Removal) -> Tensor:
    problem = stages.problem
    part = problem.train.select(removal.rows)
    train = problem.as_trained(params, part)
    if removal.instances is None:
        return stages.tensor(total_gradients(train).gradients).double().mean(0)
    marked = removal.marks(problem.train)
    # A weight of the n of a support set, or of the m of a query set, is 1/n or 1/m of a task.
    sizes = [len(part.tasks[row].rows(name)) for row, name, _ in part.instances()]
    whole = float((torch.tensor(sizes).reciprocal() * torch.from_numpy(marked)).sum())
    gradient: Tensor = weight_gradient(train, marked) / whole
    return gradient.to(problem.batching.device)


def _check(stages: Stages, candidate: CandidateConfig, removal: Removal) -> None:
    """Refuses what cannot be differentiated in the weights of single instances."""
    config = stages.problem.config
    influence = config.influence
    iterates = influence.derivative == "implicit" and influence.inner.inverse == "cg"
    ascends = influence.method == "gradient-ascent" and config.learner.name == "imaml"
    if removal.instances is not None and (iterates or ascends):
        raise ConfigError(
            f"evaluate: {candidate.name}",
            "has an inner inverse by cg, which does not give the derivative in single instances",
            "drop: tasks, or influence.inner.inverse: ekfac, ggn or dense",
        )


EDITS: dict[str, Callable[[Stages, Removal], Step]] = {
    "task-if": by_total_hessian,
    "direct-if": by_partial_hessian,
    "ekfac-if": by_pooled_ekfac,
    "gradient-ascent": by_ascent,
}
"""By ``influence.method``."""
