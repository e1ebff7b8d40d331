"""What stands in ``manifest.json``: where the scores come from and how well they were computed."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from metaaudit import __version__
from metaaudit.bilevel import Adjoint, CurvatureScale, TaskGradients
from metaaudit.config.schema import Config
from metaaudit.curvature import FactorCache
from metaaudit.inputs.task_set import TaskSet
from metaaudit.loading import Problem, Weights
from metaaudit.runs.saved import SCHEMA_VERSION

PACKAGES = ("torch", "numpy", "h5py", "safetensors", "pydantic")


def provenance(problem: Problem, weights: Weights, cache: FactorCache) -> dict[str, Any]:
    """Inputs, settings, versions and what the cache gave."""
    config = problem.config
    return {
        "schema_version": SCHEMA_VERSION,
        "metaaudit_version": __version__,
        "config": config.model_dump(mode="json"),
        "seeds": {"training": config.training.seed, "mislabel": config.mislabel.seed},
        "checkpoint": {"path": str(config.checkpoint), "sha256": weights.sha256},
        "data": {
            "train": _data(config, problem.train),
            "eval": _data(config, problem.evaluation),
        },
        "packages": {name: version(name) for name in PACKAGES},
        "python": sys.version.split()[0],
        "device": str(problem.batching.device),
        "dtype": config.compute.dtype,
        "task_batch": config.compute.task_batch,
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


def solver(
    config: Config, adjoint: Adjoint, scale: CurvatureScale | None, targets: list[str]
) -> dict[str, Any]:
    """How every target was solved for."""
    solution = adjoint.solution
    summary: dict[str, Any] = {
        "method": config.influence.method,
        "curvature": config.influence.curvature if solution else None,
        "solver": solution.solver if solution else None,
        "damping": adjoint.damping,
        "delta": config.training.weight_decay,
        "tolerance": config.influence.tolerance,
        "converged": solution.converged if solution else True,
        "targets": [],
        "residual_history": list(solution.history) if solution else [],
        "curvature_scale": None,
    }
    if solution:
        columns = (solution.status, solution.iterations, solution.residual)
        summary["targets"] = [
            {"eval_id": target, "status": str(status), "iterations": count, "residual": left}
            for target, status, count, left in zip(targets, *columns, strict=True)
        ]
    if scale:
        ratio = scale.exact / scale.approximate if scale.approximate else None
        summary["curvature_scale"] = {**asdict(scale), "ratio": ratio}
    return summary


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
