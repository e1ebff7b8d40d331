"""The command line: arguments in, one call, exit code out. Heavy imports wait for their command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from metaaudit import __version__
from metaaudit.baseline_app import app as baseline_app
from metaaudit.baseline_app import suppress
from metaaudit.cache_app import app as cache_app
from metaaudit.console import Messages, results
from metaaudit.diagnose_app import diagnose
from metaaudit.errors import UsageError
from metaaudit.evaluate_app import evaluate
from metaaudit.exit_codes import Group
from metaaudit.options import ConfigArgument, DeviceOption, SetOption, configured
from metaaudit.prune_app import prune
from metaaudit.ranks import is_main
from metaaudit.report_app import (
    BaselineOption,
    FailOnOption,
    SuppressionsOption,
    conclude,
    explain,
    judged,
    report,
)

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the tasks that harm a few-shot learner and the instances that are mislabeled.",
)

app.add_typer(baseline_app, name="baseline")
app.add_typer(cache_app, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        results().print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find the tasks that harm a few-shot learner and the instances that are mislabeled."""


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where everything is written.")
    ] = Path("metaaudit-demo"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier demo wrote.")
    ] = False,
) -> None:
    """Train a small MAML on real digits, plant wrong labels, and audit it, in a minute or two."""
    from metaaudit.demo import run_demo

    run_demo(folder, Messages(), results(), overwrite=overwrite)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write it.")] = Path(),
) -> None:
    """Write a commented configuration, metaaudit.yaml."""
    from metaaudit.config import write_template

    results().print(str(write_template(folder)), soft_wrap=True)


@app.command()
def validate(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG...", help="Configurations (YAML).")
    ],
    contact_sheet: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="PNG", help="Write a picture of a few tasks, as the model sees them."),
    ] = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Load everything that a configuration names, try the adaptation, and say what was found."""
    if contact_sheet and len(configs) > 1:
        raise UsageError("--contact-sheet", "is one file", "one configuration")
    for path in configs:
        loaded = configured(path, overrides, device)
        from metaaudit import validation

        if len(configs) > 1:
            results().print(f"{path}:", markup=False, soft_wrap=True)
        for line in validation.validate(loaded, contact_sheet):
            results().print(line, markup=False, soft_wrap=True)


@app.command()
def train(
    config: ConfigArgument,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last saved epoch.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")
    ] = False,
    overrides: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Meta-train the reference MAML and write a safetensors checkpoint."""
    loaded = configured(config, overrides, device)
    from metaaudit.meta_train import run

    done = run(loaded, Messages(), resume=resume, overwrite=overwrite)
    results().print(
        f"{done.files.checkpoint}: {done.epochs} epochs, evaluation accuracy {done.accuracy:.3f}, "
        f"loss {done.loss:.3f}",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def score(
    config: ConfigArgument,
    run: Annotated[Path, typer.Option(metavar="RUN", help="New folder for the scores.")],
    method: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Override influence.method: trak or tracin, for one."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Tell what would run, and what time, memory and disk it takes."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after an interruption; a whole run stays.")
    ] = False,
    fail_on: FailOnOption = None,
    baseline: BaselineOption = None,
    suppressions: SuppressionsOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Score every training task and instance; exit 1 if a gate fails."""
    chosen = [f"influence.method={method}"] if method else []
    loaded = configured(config, [*(overrides or []), *chosen], device)
    from metaaudit.gates import Allowed, chosen_gate, rule_gates

    gate = chosen_gate(loaded.gate, fail_on or (), baseline, suppressions)
    if rule_gates(gate):
        Allowed.read(gate)  # a file that is missing is told before the work
    from metaaudit import audit

    messages = Messages()
    if dry_run:
        from metaaudit.preflight import plan

        for what, how in plan(loaded, run, messages):
            results().print(f"{what}: {how}", markup=False, soft_wrap=True)
        return
    if not (resume and audit.finished(loaded, run)):
        audit.run(loaded, run, messages)
    if not is_main():  # an error there would make torchrun end the one that still writes
        return
    from metaaudit.reports import print_tables
    from metaaudit.runs.saved import SavedRun

    saved = SavedRun.open(run)
    print_tables(saved, results())
    conclude(judged(saved, gate))


app.command()(report)


app.command()(prune)
app.command()(evaluate)
app.command()(diagnose)
app.command()(suppress)
app.command()(explain)


def main() -> None:
    """Entry point of the ``metaaudit`` command."""
    sys.exit(app())


if __name__ == "__main__":
    main()
