"""The command line: arguments in, one call, exit code out. Heavy imports wait for their command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from metaaudit import __version__
from metaaudit.baseline_app import app as baseline_app
from metaaudit.baseline_app import suppress
from metaaudit.cache_app import app as cache_app
from metaaudit.console import Messages, results
from metaaudit.errors import UsageError
from metaaudit.exit_codes import Group
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

PruneBy = Literal[
    "influence",
    "label_noise",
    "mislabel_score",
    "harmful",
    "mislabeled",
    "noisy",
    "contradictory",
    "duplicate",
    "outlier",
]
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


def _config(path: Path, overrides: list[str] | None, device: str | None) -> Any:
    from metaaudit.config import load_config

    chosen = [f"compute.device={device}"] if device else []
    return load_config(path, [*(overrides or []), *chosen])


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
        loaded = _config(path, overrides, device)
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
    loaded = _config(config, overrides, device)
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
        bool, typer.Option("--dry-run", help="Load everything and tell what would run.")
    ] = False,
    fail_on: FailOnOption = None,
    baseline: BaselineOption = None,
    suppressions: SuppressionsOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Score every training task and instance; exit 1 if a gate fails."""
    chosen = [f"influence.method={method}"] if method else []
    loaded = _config(config, [*(overrides or []), *chosen], device)
    from metaaudit.gates import Allowed, chosen_gate, rule_gates

    gate = chosen_gate(loaded.gate, fail_on or (), baseline, suppressions)
    if rule_gates(gate):
        Allowed.read(gate)  # a file that is missing is told before the work
    from metaaudit import audit

    messages = Messages()
    if dry_run:
        for what, how in audit.plan(loaded, run, messages):
            results().print(f"{what}: {how}", markup=False, soft_wrap=True)
        return
    audit.run(loaded, run, messages)
    from metaaudit.reports import print_tables
    from metaaudit.runs.saved import SavedRun

    saved = SavedRun.open(run)
    print_tables(saved, results())
    conclude(judged(saved, gate))


app.command()(report)


@app.command()
def prune(
    run: RunArgument,
    drop: Annotated[
        Optional[Literal["tasks", "instances"]],  # noqa: UP045
        typer.Option(help="What goes."),
    ] = None,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Give mislabeled instances the suggested labels.")
    ] = False,
    by: Annotated[
        Optional[PruneBy],  # noqa: UP045
        typer.Option(help="What decides: a score or a rule."),
    ] = None,
    max_fraction: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="At most this share of all tasks or instances, worst first."),
    ] = None,
    min_per_class: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Support instances of every class that each task keeps; 1 by default."),
    ] = None,
    plan: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Where the plan is written; RUN/prune.json by default."),
    ] = None,
    from_plan: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Use this plan, perhaps edited, and make none."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the changed tasks to --out.")
    ] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="NEW", help="New .npz or .h5 file of episodes."),
    ] = None,
    edit_checkpoint: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="NEW", help="New .safetensors file, by influence, without what is dropped."
        ),
    ] = None,
) -> None:
    """Plan what to drop or relabel and why; with --apply, write a changed copy of the tasks."""
    from metaaudit.prune import PruneRequest, run_prune

    request = PruneRequest(
        drop=drop,
        relabel=relabel,
        by=by,
        max_fraction=max_fraction,
        min_per_class=min_per_class,
        plan=plan,
        from_plan=from_plan,
        apply=apply,
        out=out,
        edited=edit_checkpoint,
    )
    for line in run_prune(run, request, Messages()):
        results().print(line, markup=False, soft_wrap=True)


@app.command()
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
    loaded = with_experiments(_config(config, chosen, device), kind or (), flags)
    from metaaudit import evaluate

    seconds = None if budget is None else 60 * budget
    evaluate.conclude(evaluate.run(loaded, run, Messages(), seconds), results())


app.command()(suppress)
app.command()(explain)


def main() -> None:
    """Entry point of the ``metaaudit`` command."""
    sys.exit(app())


if __name__ == "__main__":
    main()
