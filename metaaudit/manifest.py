"""What stands in ``manifest.json``: where the scores come from and how well they were computed."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from metaaudit import __version__
from metaaudit.bilevel import (
    Adaptation,
    Adjoint,
    Attempt,
    CurvatureScale,
    Implicit,
    TaskGradients,
)
from metaaudit.bilevel.inner import CGInverse, DenseInverse
from metaaudit.cache import FactorCache
from metaaudit.config.learner import ImamlConfig
from metaaudit.config.schema import Config
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Layout, Params
from metaaudit.problem import Problem
from metaaudit.runs.saved import SCHEMA_VERSION
from metaaudit.selection import FEWEST, gram, signal_to_noise

PACKAGES = ("torch", "numpy", "h5py", "safetensors", "pydantic")


def provenance(problem: Problem, cache: FactorCache) -> dict[str, Any]:
    """Inputs, settings, versions and what the cache gave."""
    config = problem.config
    return {
        "schema_version": SCHEMA_VERSION,
        "metaaudit_version": __version__,
        "config": config.model_dump(mode="json"),
        "seeds": {"training": config.training.seed, "mislabel": config.mislabel.seed},
        "data": {
            "train": _data(config, problem.train),
            "eval": _data(config, problem.evaluation),
        },
        "coupled": problem.model.coupled,
        "packages": {name: version(name) for name in PACKAGES},
        "python": sys.version.split()[0],
        "device": str(problem.batching.device),
        "dtype": config.compute.dtype,
        "task_batch": problem.batching.size,
        "cache": {name: asdict(use) for name, use in cache.uses.items()},
        "coverage": {
            "tasks": len(problem.train),
            "instances": problem.train.n_instances,
            "eval_tasks": len(problem.evaluation),
        },
    }


def evaluation(task_set: TaskSet, found: TaskGradients) -> dict[str, float]:
    """Loss and accuracy after adaptation on the query sets of the evaluation tasks."""
    query = np.array([name == "query" for _, name, _ in task_set.instances()])
    return {
        "mean_loss": float(found.outer_loss.mean()),
        "mean_accuracy": float(found.correct[query].mean()),
    }


def evaluation_gradient(found: TaskGradients) -> dict[str, float] | None:
    """How much of the evaluation tasks' mean gradient is signal; ``None`` of fewer than three.

    Returns:
        ``tasks``; the signal-to-noise ratio of one task's gradient as ``ratio``, with an interval
        of 95% from ``low`` to ``high``. That of their mean is ``tasks`` times as much.
    """
    count = len(found.gradients)
    if count < FEWEST:
        return None
    noise = signal_to_noise(gram(found.gradients))
    low, high = noise.interval
    numbers = {"ratio": noise.ratio, "low": low, "high": high}
    return {
        "tasks": count,
        **{name: min(value, sys.float_info.max) for name, value in numbers.items()},
    }


def inner(config: Config, adaptation: Adaptation) -> dict[str, Any] | None:
    """How the inner problems were differentiated; ``None`` where the steps were unrolled."""
    if not isinstance(adaptation, Implicit):
        return None
    inverse, left = adaptation.inverse, adaptation.stationarity
    kind = config.influence.inner.inverse
    indefinite = None
    if isinstance(inverse, DenseInverse):
        indefinite = int((~inverse.definite).sum())
    return {
        "inverse": kind,
        "basis": config.influence.inner.basis if kind == "ekfac" else None,
        "fisher": config.influence.fisher if kind == "ekfac" else None,
        "rho": adaptation.rho,
        "stationarity": {"median": float(left.median()), "largest": float(left.max())},
        "indefinite_tasks": indefinite,
        "solves": asdict(inverse.report) if isinstance(inverse, CGInverse) else None,
    }


def inner_warnings(config: Config, adaptation: Adaptation) -> list[str]:
    """One line for each thing about the inner problems that did not go as asked."""
    summary = inner(config, adaptation)
    if summary is None:
        return []
    found: list[str] = []
    learner = config.learner
    proximal = isinstance(learner, ImamlConfig)
    proximity = "learner.proximity" if proximal else "influence.inner.proximity"
    remedy = f"raise {proximity}"
    if config.influence.derivative == "implicit":
        remedy += ", or use influence.inner.inverse: ggn"
    largest = summary["stationarity"]["largest"]
    # Twice: the tolerance is on the norm in single precision.
    if isinstance(learner, ImamlConfig) and largest > 2 * learner.tolerance:
        found.append(
            "the inner problem was not solved for every task (relative gradient up to "
            f"{largest:.1e}): raise learner.steps or {proximity}; with ReLU its solution may lie "
            "on a kink, where no gradient is small"
        )
    if summary["indefinite_tasks"]:
        found.append(
            f"the inner Hessian of {summary['indefinite_tasks']} tasks is not positive definite: "
            f"{remedy}"
        )
    solves = summary["solves"]
    if solves and solves["not_converged"]:
        negative = ", having met negative curvature" if solves["negative_curvature"] else ""
        # How many is in the manifest: it depends on what the cache holds.
        found.append(f"inner solves did not converge{negative}: {remedy}")
    return found


def outer_stationarity(
    config: Config, params: Params, gradients: TaskGradients
) -> dict[str, float | None]:
    """How far the checkpoint is from where training rests, which influence takes it to be at.

    Returns:
        ``norm``: of ``D F``, or of the field that the learner follows, the outer L2 weight
        included; ``relative``: over the mean norm of the tasks' own, 0 at rest and about
        ``1 / sqrt(N)`` where they have no direction in common.
    """
    point = Layout.of(params).flatten(params).double().cpu().numpy()
    each = gradients.gradients.astype(np.float64)
    total = float(np.linalg.norm(each.mean(axis=0) + config.training.weight_decay * point))
    typical = float(np.linalg.norm(each, axis=1).mean())
    return {"norm": total, "relative": total / typical if typical else None}


def solver(
    config: Config, adjoint: Adjoint, scale: CurvatureScale | None, targets: list[str]
) -> dict[str, Any]:
    """How every target was solved for."""
    influence, solution = config.influence, adjoint.solution
    summary: dict[str, Any] = {
        "method": influence.method,
        "derivative": influence.derivative,
        "curvature": influence.curvature if solution else None,
        "solver": solution.solver if solution else None,
        "preconditioner": influence.preconditioner if solution else None,
        "damping": adjoint.damping,
        "delta": config.training.weight_decay,
        "tolerance": influence.tolerance,
        "converged": solution.converged if solution else True,
        "targets": [],
        "residual_history": _finite(solution.worst_history) if solution else [],
        "attempts": [_attempt(attempt) for attempt in adjoint.attempts],
        "smallest_ritz": _finite([adjoint.spectrum.smallest])[0] if adjoint.spectrum else None,
        "curvature_scale": None,
        "sketch": None,
    }
    if solution:
        columns = (solution.status, solution.iterations, solution.residual, solution.history)
        summary["targets"] = [
            {
                "eval_id": target,
                "status": str(status),
                "iterations": count,
                "residual": left,
                "residual_history": _finite(history),
            }
            for target, status, count, left, history in zip(targets, *columns, strict=True)
        ]
    sketch = adjoint.sketch
    if sketch and sketch.summed:
        summary["sketch"] = {"rows": len(sketch.rows), "of": sketch.of, "error": sketch.error}
    if scale:
        ratio = scale.exact / scale.approximate if scale.approximate else None
        summary["curvature_scale"] = {**asdict(scale), "ratio": ratio}
    return summary


def unsolved(config: Config) -> dict[str, Any]:
    """The same of a method that solves nothing."""
    return solver(config, Adjoint(torch.empty(0), ()), None, [])


def _attempt(attempt: Attempt) -> dict[str, Any]:
    solution = attempt.solution
    return {
        "solver": solution.solver,
        "damping": attempt.damping,
        "status": sorted({str(status) for status in solution.status}),
        "iterations": max(solution.iterations),
        "residual": _finite([max(solution.residual)])[0],
        "residual_history": _finite(solution.worst_history),
    }


def _finite(values: Iterable[float]) -> list[float | None]:
    """JSON has neither NaN nor infinity: where a solve ran away, ``None``."""
    return [value if math.isfinite(value) else None for value in values]


def measurements(timings: dict[str, float], device: torch.device) -> dict[str, Any]:
    """Times and memory so far."""
    return {
        "timings_s": {name: round(seconds, 3) for name, seconds in timings.items()},
        "peak_memory_mb": round(_peak_memory_mb(device), 1),
    }


def _data(config: Config, task_set: TaskSet) -> dict[str, Any]:
    return {
        "format": config.tasks.format,
        "n_tasks": len(task_set),
        "n_instances": task_set.n_instances,
        "sha256": task_set.content_hash,
    }


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / (2**20 if sys.platform == "darwin" else 2**10)
