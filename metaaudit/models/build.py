"""From a configuration to a model that fits the tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaaudit.config.model import (
    CNN4Config,
    Conv4Config,
    FactoryConfig,
    MamlPytorchConfig,
    MlpConfig,
    ModelConfig,
    OmniglotCNNConfig,
    OmniglotFCConfig,
    ResNet12Config,
    TorchmetaConv4Config,
)
from metaaudit.errors import ModelError
from metaaudit.models.conv4 import conv4
from metaaudit.models.factory import from_factory
from metaaudit.models.functional import Model
from metaaudit.models.learn2learn import cnn4, omniglot_cnn, omniglot_fc
from metaaudit.models.maml_pytorch import maml_pytorch
from metaaudit.models.mlp import mlp
from metaaudit.models.resnet12 import resnet12
from metaaudit.models.torchmeta import torchmeta_conv4
from metaaudit.models.trial import check_model

BUILDERS: dict[type, Callable[[Any, tuple[int, ...]], nn.Module]] = {
    Conv4Config: conv4,
    MlpConfig: mlp,
    OmniglotFCConfig: omniglot_fc,
    OmniglotCNNConfig: omniglot_cnn,
    CNN4Config: cnn4,
    ResNet12Config: resnet12,
    TorchmetaConv4Config: torchmeta_conv4,
    MamlPytorchConfig: maml_pytorch,
}
"""What builds each kind of network for inputs of a shape."""


def build_model(
    config: ModelConfig, *, input_shape: tuple[int, ...], ways: int, seed: int = 0
) -> Model:
    """Builds the configured model with initial weights drawn from ``seed``.

    Args:
        config: The ``model`` section.
        input_shape: Shape of one input of the tasks.
        ways: Largest number of classes of a task.
        seed: Seed of the initial weights; the global random state is left as it was.

    Raises:
        ModelError: It cannot be built, does not take the inputs, has too few outputs, or has no
            batch normalisation whose statistics could be the running ones that were asked for.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(config, FactoryConfig):
            module, source = from_factory(config)
        else:
            builder = BUILDERS[type(config)]
            module, source = builder(config, input_shape), _source(builder)
    model = Model(module, source, running=config.statistics == "running")
    if config.statistics == "running" and not model.running:
        raise ModelError(
            "model.statistics",
            "is running but the model has no batch normalisation",
            "batch, the default",
            "remove it",
        )
    check_model(model, input_shape, ways)
    return model


def _source(builder: Callable[..., nn.Module]) -> str:
    """SHA-256 of the file that defines a network."""
    return hashlib.sha256(Path(builder.__code__.co_filename).read_bytes()).hexdigest()
