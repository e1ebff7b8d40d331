"""From a configuration to everything that training and scoring start from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from metaaudit.bilevel import Batching
from metaaudit.config import Config
from metaaudit.config.compute import ComputeConfig
from metaaudit.errors import ConfigError, TaskSetError
from metaaudit.inputs.checkpoints import Target, fit_weights, read_checkpoint
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks
from metaaudit.models import Params, build_model
from metaaudit.problem import Problem, build_objective
from metaaudit.training.planting import planted
from metaaudit.training.recipe import disagreements

AT_ONCE = {"cpu": 10, "cuda": 50}
"""Tasks computed at once, unless memory is short: more are no quicker."""


@dataclass(frozen=True)
class Weights:
    """Meta-parameters as read from a checkpoint.

    Attributes:
        path: The file.
        params: The weights, on the device and in the precision of the problem.
        sha256: Of the file.
        buffers: What the model takes from the file beside them, such as running statistics.
        mapping: Lines that say which tensor of the file is which parameter, a summary first.
        warnings: One line for each way in which the checkpoint disagrees with the configuration.
        metadata: What else the file says, such as the learning rate.
    """

    path: Path
    params: Params
    sha256: str
    mapping: tuple[str, ...]
    buffers: Params
    warnings: tuple[str, ...]
    metadata: dict[str, str] = field(default_factory=dict)


def prepare(config: Config) -> Problem:
    """Loads the tasks, plants what is to be planted, and builds model and learner.

    Raises:
        InputError: Tasks or model cannot be used, or do not fit together.
        ConfigError: The device is not there.
    """
    _device(config.compute.device)  # before tasks are loaded, which may take long
    train, evaluation = load_tasks(config.tasks)
    if not config.plant.anything:
        return assemble(config, train, evaluation)
    changed = planted(train, config.plant)
    return replace(assemble(config, changed.task_set, evaluation), planted=changed)


def assemble(config: Config, train: TaskSet, evaluation: TaskSet) -> Problem:
    """Builds model and learner for tasks that are at hand, in which nothing is planted here.

    Raises:
        InputError: The model cannot be used, or does not fit the tasks.
        ConfigError: The device is not there.
    """
    _set_up_torch(config.compute)
    device = _device(config.compute.device)
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.compute.dtype]
    if train.pool.input_shape != evaluation.pool.input_shape:
        raise TaskSetError(
            "tasks",
            f"training inputs have shape {list(train.pool.input_shape)}, evaluation inputs "
            f"{list(evaluation.pool.input_shape)}",
            "one shape",
        )
    model = build_model(
        config.model,
        input_shape=train.pool.input_shape,
        ways=max(train.ways, evaluation.ways),
        seed=config.training.seed,
    ).to(device, dtype)
    objective = build_objective(model, config.learner, train.pool.input_shape)
    asked = config.compute.task_batch
    at_once = AT_ONCE[device.type] if asked == "auto" else asked
    batching = Batching(at_once, device, dtype)
    return Problem(config, train, evaluation, model, objective, batching)


def load_weights(problem: Problem, path: Path | None = None) -> Weights:
    """Reads a checkpoint into meta-parameters, and its buffers into the model.

    Args:
        problem: What it is to fit.
        path: One of the configured checkpoints; the first one by default.

    Raises:
        CheckpointError: It cannot be read, or its tensors do not fit the model.
        ConfigError: ``rename`` names what is not there.
    """
    config = problem.config
    path = path or config.checkpoints[0]
    checkpoint = read_checkpoint(path)
    fitted = fit_weights(
        checkpoint.weights,
        _target(problem),
        path,
        rename=config.rename,
        ordered=path.suffix != ".safetensors",  # which sorts tensors by name
    )
    weights = Weights(
        path=path,
        params={name: p.to(problem.template[name]) for name, p in fitted.params.items()},
        sha256=checkpoint.sha256,
        mapping=fitted.mapping,
        buffers=fitted.buffers,
        warnings=(*fitted.warnings, *disagreements(checkpoint.metadata, config)),
        metadata=checkpoint.metadata,
    )
    problem.take_buffers(weights.buffers)
    return weights


def _target(problem: Problem) -> Target:
    """What the checkpoint is to hold, and every name that the model has for it."""
    module = problem.model.module
    first: dict[int, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known != name:
            aliases[known] = (*aliases.get(known, ()), name)
    return Target(
        template=problem.template,
        network=problem.model.initial(),
        buffers=dict(module.named_buffers()),
        required=problem.model.running,
        optional=problem.objective.learner.own,
        aliases=aliases,
    )


def _set_up_torch(compute: ComputeConfig) -> None:
    torch.set_num_threads(compute.threads)
    torch.set_float32_matmul_precision(compute.matmul)
    torch.backends.cudnn.allow_tf32 = compute.matmul != "highest"
    # The same inputs give the same bytes; what has no such algorithm, torch warns of if asked to.
    torch.backends.cudnn.deterministic = True
    if compute.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(compute.deterministic, warn_only=True)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "compute.device", "is cuda but torch sees none", "cpu or auto", "use --device auto"
        )
    return torch.device(name)
