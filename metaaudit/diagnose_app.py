"""``metaaudit diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from metaaudit.console import Messages, results
from metaaudit.options import ConfigArgument, DeviceOption, SetOption, configured


def diagnose(
    config: ConfigArgument,
    run: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="RUN", help="New folder for tables and figures."),
    ] = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Measure how noisy the tasks' gradients are, and how many make a direction."""
    loaded = configured(config, overrides, device)
    from metaaudit import diagnose
    from metaaudit.fidelity.writing import print_results

    print_results([diagnose.run(loaded, run, Messages())], results())
