"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from metaaudit.config import Config

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration (YAML).")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `score` wrote.")]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads it at run time)
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in influence.damping=0.1."),
]
DeviceOption = Annotated[
    Optional[Literal["auto", "cpu", "cuda"]],  # noqa: UP045
    typer.Option(help="Override compute.device."),
]


def configured(path: Path, overrides: list[str] | None, device: str | None) -> Config:
    """The configuration of a command, with what its options override.

    Raises:
        ConfigError: The file cannot be read, or a value is not allowed.
    """
    from metaaudit.config import load_config

    chosen = [f"compute.device={device}"] if device else []
    return load_config(path, [*(overrides or []), *chosen])
