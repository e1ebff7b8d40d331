"""From a configuration to everything that training and scoring start from."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from metaaudit.bilevel import (
    Adaptation,
    Batching,
    InnerMethod,
    InnerProblem,
    Objective,
    Unrolled,
)
from metaaudit.config import Config
from metaaudit.config.schema import InfluenceConfig, InnerConfig
from metaaudit.curvature import Network
from metaaudit.errors import CheckpointError, ConfigError, TaskSetError
from metaaudit.inputs.checkpoints import fit_weights, read_checkpoint
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks
from metaaudit.learners import build_learner
from metaaudit.models import Model, Params, build_model


@dataclass(frozen=True)
class Problem:
    """The objects that a configuration names.

    Attributes:
        config: The configuration.
        train: Training tasks.
        evaluation: Evaluation tasks.
        model: The network, with weights drawn from ``training.seed``.
        objective: The bilevel objective of network and learner.
        batching: How tasks become tensors.
    """

    config: Config
    train: TaskSet
    evaluation: TaskSet
    model: Model
    objective: Objective
    batching: Batching

    def as_trained(self, params: Params, task_set: TaskSet) -> Adaptation:
        """The adaptation at some meta-parameters, differentiated as the learner is trained."""
        learner = self.config.learner
        if learner.proximity is None:
            return Unrolled(self.objective, params, task_set, self.batching)
        method = InnerMethod(
            InfluenceConfig(
                derivative="implicit",
                inner=InnerConfig(inverse="cg"),
                tolerance=learner.tolerance,
                max_iterations=learner.steps,
            )
        )
        return method.implicit(self.inner_problem(params, task_set, learner.proximity))

    def inner_problem(self, params: Params, task_set: TaskSet, rho: float) -> InnerProblem:
        """The proximal inner problem of every task of a set."""
        return InnerProblem(self.objective, params, task_set, self.batching, rho)

    def layers(self) -> Network:
        """The model's layers, for EK-FAC.

        Raises:
            ModelError: EK-FAC does not cover the model.
        """
        shape = self.train.pool.input_shape
        device, dtype = self.batching.device, self.batching.dtype
        return Network.of(self.model.module, torch.zeros(2, *shape, device=device, dtype=dtype))


@dataclass(frozen=True)
class Weights:
    """Meta-parameters as read from a checkpoint.

    Attributes:
        params: The weights, on the device and in the precision of the problem.
        sha256: Of the file.
        warnings: One line for each way in which the checkpoint disagrees with the configuration.
    """

    params: Params
    sha256: str
    warnings: tuple[str, ...]


def prepare(config: Config) -> Problem:
    """Loads the tasks and builds model and learner.

    Raises:
        InputError: Tasks or model cannot be used, or do not fit together.
        ConfigError: The device is not there.
    """
    torch.set_num_threads(config.compute.threads)
    # The same inputs give the same bytes, on a GPU too, in the precision that was asked for.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    device = _device(config.compute.device)
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.compute.dtype]
    train, evaluation = load_tasks(config.tasks)
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
    objective = Objective(model, build_learner(config.learner))
    batching = Batching(config.compute.task_batch, device, dtype)
    return Problem(config, train, evaluation, model, objective, batching)


def load_weights(problem: Problem) -> Weights:
    """Reads the configured checkpoint into the model's parameters.

    Raises:
        CheckpointError: It cannot be read, or its tensors do not fit the model.
    """
    config = problem.config
    checkpoint = read_checkpoint(config.checkpoint)
    template = problem.model.initial()
    weights = _without_state(checkpoint.weights, problem.model, config.checkpoint)
    params = fit_weights(weights, template, config.checkpoint)
    params = {name: p.to(template[name]) for name, p in params.items()}
    return Weights(params, checkpoint.sha256, tuple(_disagreements(checkpoint.metadata, config)))


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "compute.device", "is cuda but torch sees none", "cpu or auto", "use --device auto"
        )
    return torch.device(name)


def _without_state(weights: Params, model: Model, where: object) -> Params:
    """The weights without the module's own buffers, which are loaded, and without second names.

    Raises:
        CheckpointError: A buffer has another shape, or two names of one tensor differ.
    """
    params = dict(model.module.named_parameters())
    names = {id(p): name for name, p in params.items()}
    rest = dict(weights)
    for name, tensor in model.module.state_dict(keep_vars=True).items():
        if name in params or name not in weights:
            continue
        given = rest.pop(name)
        twin = names.get(id(tensor))
        if given.shape != tensor.shape or (
            twin in weights and not torch.equal(given, weights[str(twin)])
        ):
            raise CheckpointError(
                where,
                f"{name} {list(given.shape)} does not fit the model",
                f"{list(tensor.shape)}" + (f" and the values of {twin}" if twin else ""),
            )
        if twin is None:
            tensor.copy_(given)
        else:
            rest.setdefault(twin, given)
    return rest


def _disagreements(metadata: dict[str, str], config: Config) -> list[str]:
    """Where the recipe in a checkpoint of ``metaaudit train`` differs from the configuration."""
    try:
        recipe = json.loads(metadata["recipe"])
        trained = {
            "learner": dict(recipe["learner"]),
            "training": {"weight_decay": recipe["training"]["weight_decay"]},
        }
        epoch, epochs = int(metadata["epoch"]), int(recipe["training"]["epochs"])
    except (KeyError, ValueError, TypeError):
        return []  # from elsewhere: there is nothing to compare with
    found = []
    if epoch < epochs:
        found.append(f"the checkpoint was interrupted after epoch {epoch} of {epochs}")
    now = config.model_dump(mode="json")
    for section, values in trained.items():
        for key, value in values.items():
            if key in now[section] and now[section][key] != value:
                found.append(
                    f"{section}.{key} is {now[section][key]} but the checkpoint was trained with "
                    f"{value}"
                )
    return found
