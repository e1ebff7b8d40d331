"""One's own model: a callable named in the configuration."""

from __future__ import annotations

from torch import nn

from metaaudit.config.model import FactoryConfig
from metaaudit.errors import ModelError
from metaaudit.imports import Factory


def from_factory(config: FactoryConfig) -> tuple[nn.Module, str]:
    """Calls the factory; returns the module and the SHA-256 of the source that defines it.

    That is the source of the factory's module, of the classes of all parts, and of the folder.

    Raises:
        ModelError: It cannot be imported or called, or returns no module.
    """
    factory = Factory("model", config.factory, config.path, ModelError)
    module = factory.called(config.args)
    if not isinstance(module, nn.Module):
        raise ModelError(factory.where, f"returned a {type(module).__name__}", "a torch.nn.Module")
    return module, factory.source_hash({type(part).__module__ for part in module.modules()})
