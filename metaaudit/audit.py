"""``metaaudit score``: the stages of an audit, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaaudit.bilevel import (
    Adjoint,
    Advance,
    CurvatureScale,
    TaskGradients,
    TotalHessian,
    curvature_scale,
    solve_adjoint,
    total_gradients,
)
from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.curvature import FactorCache, cache_folder, code_hash, weights_hash
from metaaudit.errors import ConfigError, IncompleteError
from metaaudit.influence import harmful_tasks, instance_influence, task_influence
from metaaudit.inputs.task_set import TaskSet
from metaaudit.labelnoise import LabelNoise, cross_fit, label_noise
from metaaudit.loading import Problem, Weights, load_weights, prepare
from metaaudit.manifest import evaluation, measurements, provenance, solver
from metaaudit.runs.atomic import check_new, new_folder
from metaaudit.runs.scores import Scores, write_run


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
            spent = measurements(messages.timings, audit.problem.batching.device)
            write_run(temporary, scores, audit.problem.train, manifest | spent)
    for warning in manifest["warnings"]:
        messages.warn(warning)


def plan(config: Config, folder: Path, messages: Messages) -> list[tuple[str, str]]:
    """What ``run`` would do, as ``(what, how)`` lines; loads everything and computes no score."""
    check_new(folder)
    audit = _prepared(config, messages)
    problem, weights = audit.problem, audit.weights

    def source(name: str, depends_on: Mapping[str, Any]) -> str:
        return "from the cache" if audit.cache.holds(name, depends_on) else "to compute"

    influence = config.influence
    n_targets = len(problem.evaluation) if influence.targets == "each" else 1
    n_params = sum(p.numel() for p in weights.params.values())
    return [
        ("training tasks", f"{len(problem.train)}, {problem.train.n_instances} instances"),
        ("evaluation tasks", f"{len(problem.evaluation)}"),
        ("meta-parameters", f"{n_params}"),
        ("device", f"{problem.batching.device}, {config.compute.dtype}"),
        ("training gradients", source("gradients", audit.gradient_key(problem.train))),
        ("evaluation gradients", source("gradients", audit.gradient_key(problem.evaluation))),
        ("cross-fitting", source("crossfit", audit.crossfit_key())),
        (
            "solve",
            influence.method
            if influence.method == "dot"
            else f"{influence.curvature} by {influence.solver} for {n_targets} targets",
        ),
        ("factor cache", str(audit.cache.folder)),
        ("run folder", str(folder)),
        *(("warning", warning) for warning in weights.warnings),
    ]


@dataclass(frozen=True)
class Audit:
    """One audit, stage by stage.

    Attributes:
        problem: Tasks, model and learner.
        weights: Meta-parameters.
        cache: Where what can be reused is kept.
        messages: Told of progress.
    """

    problem: Problem
    weights: Weights
    cache: FactorCache
    messages: Messages

    def score(self) -> tuple[Scores, dict[str, Any]]:
        """Runs all stages; returns the scores and the manifest without its measurements."""
        config, train = self.problem.config, self.problem.train
        gradients = self._gradients("gradients", train)
        targets = self._gradients("evaluation gradients", self.problem.evaluation)
        adjoint, scale = self._solve(gradients, targets)
        by_task = task_influence(self._tensor(gradients.gradients), adjoint.direction)
        by_instance = self._instances(adjoint)
        noise = self._label_noise()
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
            loss=gradients.losses,
            crossfit_loss=noise.loss,
            mislabel_score=noise.score,
            suggested_label=noise.suggested,
            mislabeled=noise.mislabeled,
        )
        manifest = {
            **provenance(self.problem, self.weights, self.cache),
            "evaluation": evaluation(self.problem.evaluation, targets),
            "solver": solver(config, adjoint, scale, self._target_ids()),
            "warnings": [*self.weights.warnings, *self.cache.warnings, *adjoint.warnings],
        }
        return scores, manifest

    def gradient_key(self, task_set: TaskSet) -> dict[str, Any]:
        """All that the total gradients of a task set depend on."""
        config, batching = self.problem.config, self.problem.batching
        return {
            "code": code_hash(),
            "torch": torch.__version__,
            "device": batching.device.type,
            "dtype": config.compute.dtype,
            "model": [
                config.model.model_dump(mode="json"),
                self.problem.model.source,
                weights_hash(self.problem.model.constants()),
            ],
            "learner": config.learner.model_dump(mode="json"),
            "weights": weights_hash(self.weights.params),
            "tasks": task_set.content_hash,
        }

    def crossfit_key(self) -> dict[str, Any]:
        """All that the cross-fitted probabilities depend on."""
        settings = self.problem.config.mislabel.model_dump(mode="json")
        return {**self.gradient_key(self.problem.train), "mislabel": settings}

    def _gradients(self, stage: str, task_set: TaskSet) -> TaskGradients:
        problem = self.problem

        def compute(advance: Advance) -> dict[str, Any]:
            found = total_gradients(
                problem.objective, self.weights.params, task_set, problem.batching, advance
            )
            largest = np.abs(found.gradients).max(axis=1)
            _check_finite(stage, task_set, found.losses, largest)
            return vars(found)

        key = self.gradient_key(task_set)
        arrays = self._cached("gradients", stage, key, compute, len(task_set))
        return TaskGradients(**arrays)

    def _solve(
        self, gradients: TaskGradients, targets: TaskGradients
    ) -> tuple[Adjoint, CurvatureScale | None]:
        problem, config = self.problem, self.problem.config
        hessian = TotalHessian(
            problem.objective, self.weights.params, problem.train, problem.batching
        )
        rhs = self._tensor(targets.gradients).double()
        if config.influence.targets == "mean":
            rhs = rhs.mean(dim=0, keepdim=True)
        train = self._tensor(gradients.gradients)
        with self.messages.stage("solve"):
            adjoint = solve_adjoint(
                config.influence, hessian, train, rhs, config.training.weight_decay
            )
            approximate = config.influence.curvature == "task-fisher"
            if adjoint.solution is None or not approximate:
                return adjoint, None
            return adjoint, curvature_scale(hessian, train, adjoint.mean_direction)

    def _instances(self, adjoint: Adjoint) -> np.ndarray:
        problem = self.problem
        with self.messages.stage("instance influence", len(problem.train)) as advance:
            found = instance_influence(
                problem.objective,
                self.weights.params,
                adjoint.mean_direction,
                problem.train,
                problem.batching,
                advance,
            )
        _check_finite("instance influence", problem.train, found)
        return found

    def _label_noise(self) -> LabelNoise:
        problem, config = self.problem, self.problem.config.mislabel

        def compute(advance: Advance) -> dict[str, Any]:
            found = cross_fit(
                problem.objective,
                self.weights.params,
                problem.train,
                problem.batching,
                config,
                advance,
            )
            _check_finite("cross-fitting", problem.train, found.sum(axis=1))
            return {"log_probabilities": found}

        total = len(problem.train) * config.repeats
        arrays = self._cached("crossfit", "cross-fitting", self.crossfit_key(), compute, total)
        return label_noise(arrays["log_probabilities"], problem.train)

    def _cached(
        self,
        name: str,
        stage: str,
        depends_on: dict[str, Any],
        compute: Callable[[Advance], dict[str, Any]],
        total: int,
    ) -> dict[str, Any]:
        """A stage whose result the cache may hold, and a word on what that saved."""
        with self.messages.stage(stage, total) as advance:
            arrays = self.cache.get(name, depends_on, lambda: compute(advance), label=stage)
            use = self.cache.uses[stage]
            if use.status == "hit":
                advance(total, f"from the cache, {use.saved_s:.1f} s saved")
        return arrays

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.problem.batching.device)

    def _target_ids(self) -> list[str]:
        each = self.problem.config.influence.targets == "each"
        return self.problem.evaluation.task_ids if each else ["mean"]


def _prepared(config: Config, messages: Messages) -> Audit:
    """An audit with everything loaded and nothing computed."""
    with messages.stage("load"):
        problem = prepare(config)
        weights = load_weights(problem)
    _check_learner(config)
    return Audit(problem, weights, FactorCache(cache_folder(), say=messages.say), messages)


def _check_learner(config: Config) -> None:
    if config.learner.name == "fomaml":
        raise ConfigError(
            "learner.name",
            "fomaml can be trained but not scored: it follows a field that is no gradient",
            "maml",
            "score the checkpoint as learner.name: maml",
        )


def _check_finite(stage: str, task_set: TaskSet, *values: np.ndarray) -> None:
    """Refuses numbers that are not finite, one a task or one an instance, naming a task."""
    owners = np.array([row for row, _, _ in task_set.instances()])
    for array in values:
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            row = bad[0] if len(array) == len(task_set) else owners[bad[0]]
            raise IncompleteError(
                stage,
                f"gave a number that is not finite for task {task_set.tasks[int(row)].task_id}",
                "finite losses and gradients",
                "lower learner.inner_lr, or use compute.dtype: float64",
            )
