"""From a configuration to a model that fits the tasks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from metaaudit.config.schema import Conv4Config, FactoryConfig, MlpConfig
from metaaudit.models.conv4 import conv4
from metaaudit.models.factory import from_factory
from metaaudit.models.functional import Model
from metaaudit.models.mlp import mlp
from metaaudit.models.trial import check_model


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
    check_model(model, input_shape, ways)
    return model


def _source(name: str) -> str:
    return hashlib.sha256(Path(__file__).with_name(name).read_bytes()).hexdigest()
