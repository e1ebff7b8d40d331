"""``metaaudit evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from metaaudit.console import Messages, results
from metaaudit.options import ConfigArgument, DeviceOption, SetOption, configured


def evaluate(
    config: ConfigArgument,
    run: Annotated[Path, typer.Option(metavar="RUN", help="New folder for the results.")],
    kind: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Kind of experiments to run, as lds; all configured ones by default."),
    ] = None,
    subsets: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Retrainings of lds; 60 by default."),
    ] = None,
    seeds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Training seeds of each; 2 by default."),
    ] = None,
    same_steps: Annotated[
        bool, typer.Option("--same-steps", help="Retrain by as many steps as on all tasks.")
    ] = False,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Retrain from the checkpoint, a tenth as long.")
    ] = False,
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, metavar="MINUTES", help="Retrain no longer than this; exit 3 then."),
    ] = None,
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Processes that retrain at once; 2 by default."),
    ] = None,
    plant: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="KIND:RATE", help="Plant wrong labels, as in permuted:0.2."),
    ] = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Measure how far the scores can be trusted, by retraining; exit 3 if time was up."""
    from metaaudit.config import LdsFlags, planting, with_experiments

    chosen = [*(overrides or []), *planting(plant or ())]
    chosen += [f"evaluate.jobs={jobs}"] if jobs else []
    flags = LdsFlags(subsets, seeds, same_steps or None, warm_start or None)
    loaded = with_experiments(configured(config, chosen, device), kind or (), flags)
    from metaaudit import evaluate

    seconds = None if budget is None else 60 * budget
    evaluate.conclude(evaluate.run(loaded, run, Messages(), seconds), results())
