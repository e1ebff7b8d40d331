"""``metaaudit score``: the stages of an audit, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
from metaaudit.cache import FactorCache, cache_folder
from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.influence import harmful_tasks, instance_influence, task_influence
from metaaudit.loading import load_weights, prepare
from metaaudit.manifest import (
    evaluation,
    inner,
    inner_warnings,
    measurements,
    outer_stationarity,
    provenance,
    solver,
)
from metaaudit.runs.atomic import check_new, new_folder
from metaaudit.runs.scores import Scores, write_run
from metaaudit.stages import Stages, check_finite


def run(config: Config, folder: Path, messages: Messages) -> None:
    """Scores every training task and instance and writes the run folder.

    Args:
        config: The configuration.
        folder: The run folder; it appears when it is complete.
        messages: Told of progress.

    Raises:
        MetaauditError: Something cannot be used or finished; nothing is left behind then.
    """
    with new_folder(folder) as temporary:
        audit = _prepared(config, messages)
        scores, manifest = audit.score()
        with messages.stage("write"):
            spent = measurements(messages.timings, audit.stages.problem.batching.device)
            write_run(temporary, scores, audit.stages.problem.train, manifest | spent)
    for line in audit.stages.cache.summary():
        messages.say(line)
    for warning in manifest["warnings"]:
        messages.warn(warning)


def plan(config: Config, folder: Path, messages: Messages) -> list[tuple[str, str]]:
    """What ``run`` would do, as ``(what, how)`` lines; loads everything and computes no score."""
    check_new(folder)
    audit = _prepared(config, messages)
    stages, influence = audit.stages, config.influence
    problem, weights = stages.problem, stages.weights

    def source(name: str, depends_on: Mapping[str, Any]) -> str:
        return "from the cache" if stages.cache.holds(name, depends_on) else "to compute"

    n_targets = len(problem.evaluation) if influence.targets == "each" else 1
    n_params = sum(p.numel() for p in weights.params.values())
    lines = [
        ("training tasks", f"{len(problem.train)}, {problem.train.n_instances} instances"),
        ("evaluation tasks", f"{len(problem.evaluation)}"),
        ("meta-parameters", f"{n_params}"),
        ("device", f"{problem.batching.device}, {config.compute.dtype}"),
    ]
    sets = {"training": problem.train, "evaluation": problem.evaluation}
    if influence.derivative == "implicit":
        kind = influence.inner.inverse
        lines += [
            (f"{which} inner {kind}", source(f"inner-{kind}", stages.inner_key(task_set)))
            for which, task_set in sets.items()
        ]
    lines += [
        (f"{which} gradients", source("gradients", stages.gradient_key(task_set)))
        for which, task_set in sets.items()
    ]
    if influence.outer_ekfac:
        lines.append(("outer EK-FAC", source("outer-ekfac", stages.outer_key())))
    solve = f"{influence.curvature} by {influence.solver} for {n_targets} targets"
    if influence.self_influence:
        key = stages.base_key(problem.train)
        lines.append(("self-influence", source("self-influence", key)))
    return [
        *lines,
        ("cross-fitting", source("crossfit", stages.crossfit_key())),
        ("solve", influence.method if influence.method == "dot" else solve),
        ("factor cache", str(stages.cache.folder)),
        ("run folder", str(folder)),
        *(("warning", warning) for warning in weights.warnings),
    ]


@dataclass(frozen=True)
class Audit:
    """One audit: what is computed from what.

    Attributes:
        stages: What is computed once and reused.
    """

    stages: Stages

    def score(self) -> tuple[Scores, dict[str, Any]]:
        """Runs all stages; returns the scores and the manifest without its measurements."""
        stages, problem = self.stages, self.stages.problem
        config = problem.config
        train = stages.training_adaptation()
        gradients = stages.gradients("gradients", train)
        if isinstance(train, Implicit):
            train = train.with_gradients(stages.tensor(gradients.gradients))
        held_out = stages.evaluation_adaptation()
        targets = stages.gradients("evaluation gradients", held_out)
        adjoint, scale = self._solve(train, gradients, targets)
        by_task = task_influence(stages.tensor(gradients.gradients), adjoint.direction)
        by_instance = self._instances(train, adjoint)
        own = stages.self_influence(train) if config.influence.self_influence else None
        noise = stages.label_noise()
        influence_z, harmful = harmful_tasks(by_task.mean(axis=1), config.influence.fdr)
        scores = Scores(
            task_influence=by_task,
            targets=self._target_ids(),
            influence_z=influence_z,
            harmful=harmful,
            label_noise=noise.label_noise,
            outer_loss=gradients.outer_loss,
            grad_norm=np.linalg.norm(gradients.gradients.astype(np.float64), axis=1),
            instance_influence=by_instance,
            self_influence=own,
            loss=gradients.losses,
            crossfit_loss=noise.loss,
            mislabel_score=noise.score,
            suggested_label=noise.suggested,
            mislabeled=noise.mislabeled,
        )
        warnings = [*stages.weights.warnings, *stages.cache.warnings]
        unsolved = [
            *(f"training tasks: {line}" for line in inner_warnings(config, train)),
            *(f"evaluation tasks: {line}" for line in inner_warnings(config, held_out)),
        ]
        manifest = {
            **provenance(problem, stages.weights, stages.cache),
            "evaluation": evaluation(problem.evaluation, targets),
            "outer_gradient": outer_stationarity(config, stages.weights.params, gradients),
            "inner": inner(config, train),
            "solver": solver(config, adjoint, scale, self._target_ids()),
            "warnings": [*warnings, *unsolved, *adjoint.warnings],
        }
        return scores, manifest

    def _solve(
        self, train: Adaptation, gradients: TaskGradients, targets: TaskGradients
    ) -> tuple[Adjoint, CurvatureScale | None]:
        stages, config = self.stages, self.stages.problem.config
        influence = config.influence
        rhs = stages.tensor(targets.gradients).double()
        if influence.targets == "mean":
            rhs = rhs.mean(dim=0, keepdim=True)
        own = stages.tensor(gradients.gradients)
        ekfac = stages.outer_ekfac(train, own) if influence.outer_ekfac else None
        exact = hessian = TotalHessian(train)
        with stages.messages.stage("solve"):
            if influence.curvature in FORMS and influence.method != "dot":
                hessian = TotalHessian.of(train, influence.curvature)
            solver = AdjointSolver(influence, hessian, own, config.training.weight_decay, ekfac)
            adjoint = solver.solve(rhs)
            if adjoint.solution is None or influence.curvature in ("exact", "jacobian"):
                return adjoint, None
            return adjoint, curvature_scale(exact, solver.approximation, adjoint.mean_direction)

    def _instances(self, train: Adaptation, adjoint: Adjoint) -> np.ndarray:
        task_set = train.task_set
        with self.stages.messages.stage("instance influence", len(task_set)) as advance:
            found = instance_influence(train, adjoint.mean_direction, advance)
        check_finite("instance influence", task_set, found)
        return found

    def _target_ids(self) -> list[str]:
        problem = self.stages.problem
        each = problem.config.influence.targets == "each"
        return problem.evaluation.task_ids if each else ["mean"]


def _prepared(config: Config, messages: Messages) -> Audit:
    """An audit with everything loaded and nothing computed."""
    with messages.stage("load"):
        problem = prepare(config)
        weights = load_weights(problem)
        network = problem.layers() if config.influence.uses_ekfac else None
    cache = FactorCache(cache_folder(), say=messages.say)
    return Audit(Stages(problem, weights, cache, messages, network))
