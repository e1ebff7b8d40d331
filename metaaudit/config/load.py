"""Reading a configuration: file, then ``--set`` overrides, then the schema, then paths."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from metaaudit.config.problems import first_problem
from metaaudit.config.schema import Config
from metaaudit.config.section import Section
from metaaudit.config.strict_yaml import Document, KeyPath, parse_yaml
from metaaudit.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads and checks a configuration file.

    Relative paths, those of overrides too, are relative to the file's folder; the result
    holds absolute, normalised ones. Whether they exist is left to their readers.

    Args:
        path: The YAML file.
        overrides: ``a.b=c`` each: a key's path and its new value as YAML.

    Raises:
        ConfigError: The file or an override is wrong; the message names the first problem.
    """
    document = _read(path)
    for override in overrides:
        _override(document, override)
    try:
        # Strict mode takes text for a path and a whole number for a float from JSON only.
        config = Config.model_validate_json(json.dumps(document.value))
    except ValidationError as error:
        raise first_problem(error, document, str(path)) from None
    return _with_absolute_paths(config, path.parent.resolve())


def _read(path: Path) -> Document:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not text ({error.reason})", "YAML in UTF-8") from None
    except OSError as error:
        raise ConfigError(
            path,
            f"cannot be read ({error.strerror})",
            "a configuration file",
            "`metaaudit init` writes one",
        ) from None
    document = parse_yaml(text, str(path))
    if not isinstance(document.value, dict):
        what = "is empty" if document.value is None else "holds no keys and values"
        raise ConfigError(path, what, "sections such as 'model:'", "`metaaudit init` writes one")
    return document


def _override(document: Document, override: str) -> None:
    where = f"--set {override}"
    dotted, equals, text = override.partition("=")
    keys = tuple(key.strip() for key in dotted.split("."))
    if not equals or not all(keys):
        raise ConfigError(where, "names no key and value", "--set section.key=value")
    value = parse_yaml(text, where, number_lines=False).value
    section: Any = document.value
    for depth, key in enumerate(keys[:-1], start=1):
        if key not in section:
            document.where[keys[:depth]] = where
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(where, f"{'.'.join(keys[:depth])} is a value, not a section")
    section[keys[-1]] = value
    _move(document.where, keys, where)


def _move(origins: dict[KeyPath, str], path: KeyPath, where: str) -> None:
    """Notes that ``path`` and all below it now come from ``where``."""
    for old in [key for key in origins if key[: len(path)] == path]:
        del origins[old]
    origins[path] = where


def _with_absolute_paths(section: AnySection, folder: Path) -> AnySection:
    update: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            update[name] = _absolute(value, folder)
        elif isinstance(value, list) and all(isinstance(one, Path) for one in value):
            update[name] = [_absolute(one, folder) for one in value]
        elif isinstance(value, Section):
            update[name] = _with_absolute_paths(value, folder)
    return section.model_copy(update=update)


def _absolute(path: Path, folder: Path) -> Path:
    # Not Path.resolve: following a link to the file itself could lose its suffix.
    return Path(os.path.normpath(folder / path))
