"""From a configuration to a model that fits the tasks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from metaaudit.config.schema import Conv4Config, FactoryConfig, MlpConfig
from metaaudit.errors import ModelError
from metaaudit.models.conv4 import conv4
from metaaudit.models.factory import from_factory
from metaaudit.models.functional import Model
from metaaudit.models.mlp import mlp


def build_model(
    config: Conv4Config | MlpConfig | FactoryConfig,
    *,
    input_shape: tuple[int, ...],
    ways: int,
    seed: int = 0,
) -> Model:
    """Builds the configured model with initial weights drawn from ``seed``.

    Args:
        config: The ``model`` section.
        input_shape: Shape of one input of the tasks.
        ways: Largest number of classes of a task.
        seed: Seed of the initial weights; the global random state is left as it was.

    Raises:
        ModelError: It cannot be built, does not take the inputs, or has too few outputs.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(config, FactoryConfig):
            module, source = from_factory(config)
        elif isinstance(config, Conv4Config):
            module, source = conv4(config, input_shape), _source("conv4.py")
        else:
            module, source = mlp(config, input_shape), _source("mlp.py")
    model = Model(module, source)
    _check_outputs(model, input_shape, ways)
    return model


def _source(name: str) -> str:
    return hashlib.sha256(Path(__file__).with_name(name).read_bytes()).hexdigest()


def _check_outputs(model: Model, input_shape: tuple[int, ...], ways: int) -> None:
    params = model.initial()
    if not params:
        raise ModelError("model", "has no parameters", "a module with trainable parameters")
    dtype = next(iter(params.values())).dtype
    try:
        with torch.no_grad():
            outputs = model(params, torch.zeros(2, *input_shape, dtype=dtype))
    except Exception as error:
        raise ModelError(
            "model",
            f"does not take inputs of shape {list(input_shape)} ({error})",
            "a network for the tasks' inputs",
        ) from error
    if outputs.ndim != 2 or outputs.shape[1] < ways:
        raise ModelError(
            "model.ways",
            f"the model's outputs have shape {list(outputs.shape[1:])} but the tasks have {ways} "
            "classes",
            f"at least [{ways}]",
        )
