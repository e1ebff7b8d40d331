"""``metaaudit validate``: what a configuration's files hold, without scoring."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from metaaudit.config import Config
from metaaudit.inputs.task_set import SETS, TaskSet
from metaaudit.loading import load_weights, prepare


def describe(config: Config) -> list[str]:
    """Loads tasks, model and checkpoint and says what was found.

    Raises:
        MetaauditError: Something cannot be used.
    """
    problem = prepare(config)
    weights = load_weights(problem)
    warnings = list(weights.warnings)
    shared = _inputs(problem.train) & _inputs(problem.evaluation)
    if shared:
        warnings.append(f"{len(shared)} inputs are in training and in evaluation tasks")
    return [
        f"training tasks: {_tasks(problem.train)}",
        f"evaluation tasks: {_tasks(problem.evaluation)}",
        f"inputs: {_values(problem.train)}",
        f"model: {sum(p.numel() for p in weights.params.values())} parameters in "
        f"{len(weights.params)} tensors",
        f"learner: {config.learner.name}, {config.learner.steps} steps of "
        f"{config.learner.inner_lr}",
        f"checkpoint: {config.checkpoint} (sha256 {weights.sha256[:12]})",
        *(f"warning: {warning}" for warning in warnings),
        "ok",
    ]


def _tasks(task_set: TaskSet) -> str:
    shapes = sorted({(*task.shape, 1 + int(task.support_y.max())) for task in task_set.tasks})
    sizes = ", ".join(f"{ways}-way with {n} support and {m} query" for n, m, ways in shapes[:3])
    more = f" and {len(shapes) - 3} other sizes" if len(shapes) > 3 else ""
    return f"{len(task_set)}, {task_set.n_instances} instances; {sizes}{more}"


def _values(task_set: TaskSet) -> str:
    task = task_set.tasks[0]
    values = task_set.pool.values(np.concatenate([task.rows(name) for name in SETS]))
    return (
        f"shape {list(task_set.pool.input_shape)}, values {values.min():.3g} to "
        f"{values.max():.3g} (mean {values.mean():.3g}) in the first task"
    )


def _inputs(task_set: TaskSet) -> set[bytes]:
    """Digests of the inputs as the model sees them: ids say nothing across files."""
    used = np.unique(np.concatenate([task.rows(name) for task in task_set.tasks for name in SETS]))
    return {_digest(task_set.pool.values(row)) for row in used}


def _digest(values: npt.NDArray[np.floating]) -> bytes:
    # In one precision, and with 0 for -0, for files that hold the same inputs in another type.
    return hashlib.sha256((values.astype(np.float32) + 0.0).tobytes()).digest()
