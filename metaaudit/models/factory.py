"""One's own model: a callable named in the configuration."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from metaaudit.config.schema import FactoryConfig
from metaaudit.errors import ModelError


def from_factory(config: FactoryConfig) -> tuple[nn.Module, str]:
    """Calls the factory; returns the module and the SHA-256 of the source that defines it.

    This runs code of the user's choice, named in the user's configuration; data files never can.

    Raises:
        ModelError: It cannot be imported or called, or returns no module.
    """
    name, _, attribute = config.factory.partition(":")
    if config.path is not None and not config.path.is_dir():
        raise ModelError("model.path", f"{config.path} is no folder", "the folder of the module")
    try:
        with _importable(config.path):
            factory = getattr(importlib.import_module(name), attribute)
            module = factory(**config.args)
    except Exception as error:
        raise ModelError(
            f"model.factory {config.factory}",
            f"failed with {type(error).__name__}: {error}",
            "an importable callable that takes model.args",
            "" if config.path else "set model.path to the folder of the module",
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"model.factory {config.factory}",
            f"returned a {type(module).__name__}",
            "a torch.nn.Module",
        )
    return module, _source_hash(config, module)


def _source_hash(config: FactoryConfig, module: nn.Module) -> str:
    """Of the factory's file, those of all classes in the module, and all files in the folder."""
    names = {type(part).__module__ for part in module.modules()}
    names.add(config.factory.partition(":")[0])
    files = {getattr(sys.modules.get(name), "__file__", None) for name in names}
    paths = {Path(file) for file in files if file}
    if config.path is not None:
        paths.update(config.path.rglob("*.py"))
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
