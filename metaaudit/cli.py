"""The command line: arguments in, one call, exit code out. Heavy imports wait for their command."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer
from rich.markup import escape
from typer.core import TyperGroup

from metaaudit import __version__
from metaaudit.cache_app import app as cache_app
from metaaudit.console import Messages, results
from metaaudit.errors import MetaauditError, RunError, is_interrupt

INTERRUPTED = 130
INCOMPLETE = 3


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turns every error into one line on stderr and its exit code."""
    messages = Messages()
    try:
        yield
    except MetaauditError as error:
        messages.console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except (KeyboardInterrupt, Exception) as error:
        if is_interrupt(error):
            messages.say("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        if _is_out_of_memory(error):
            messages.say(
                "error: out of memory; lower compute.task_batch (--set compute.task_batch=1)"
            )
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            messages.say(f"error: no space left on the disk of {error.filename or 'the output'}")
        elif type(error).__module__.startswith(("typer", "click")):
            raise
        else:
            traceback.print_exc()
            messages.say("error: this is a bug in metaaudit; please report the lines above")
        raise typer.Exit(INCOMPLETE) from None


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, the GPU or PyTorch's allocator of CPU memory has none left."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


class Group(TyperGroup):
    """A group whose commands end with the exit codes of ``errors.py``."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        with exit_codes():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the tasks that harm a few-shot learner and the instances that are mislabeled.",
)

app.add_typer(cache_app, name="cache")

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
    """Train a small MAML on real digits, plant wrong labels, and audit it, in under a minute."""
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
    config: ConfigArgument,
    contact_sheet: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="PNG", help="Write a picture of a few tasks, as the model sees them."),
    ] = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Load everything that a configuration names, try the adaptation, and say what was found."""
    loaded = _config(config, overrides, device)
    from metaaudit import validation

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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load everything and tell what would run.")
    ] = False,
    overrides: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Score every training task and instance."""
    loaded = _config(config, overrides, device)
    from metaaudit import audit

    messages = Messages()
    if dry_run:
        for what, how in audit.plan(loaded, run, messages):
            results().print(f"{what}: {how}", markup=False, soft_wrap=True)
        return
    audit.run(loaded, run, messages)
    _show(run)


@app.command()
def report(
    run: RunArgument,
    formats: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("-f", "--format", metavar="FORMAT=FILE", help="html, md, json or csv."),
    ] = None,
) -> None:
    """Render saved scores; without a format, as tables on the terminal."""
    from metaaudit.reports import parse_format, render
    from metaaudit.runs.atomic import is_stream, write_text
    from metaaudit.runs.saved import SavedRun, check_output

    wanted = [parse_format(text) for text in formats or []]
    for _, path in wanted:
        check_output(run, path)
    saved = SavedRun.open(run)
    texts = [(path, render(saved, fmt)) for fmt, path in wanted]
    for path, text in texts:
        write_text(path, text)
        if not is_stream(path):  # which may be where this would be printed
            results().print(str(path), markup=False, soft_wrap=True)
    if not wanted:
        _show(run)


@app.command()
def prune(
    run: RunArgument,
    drop: Annotated[Literal["tasks", "instances"], typer.Option(help="What goes.")],
    by: Annotated[
        Literal["influence", "label_noise", "mislabel_score"], typer.Option(help="What decides.")
    ],
    max_fraction: Annotated[float, typer.Option(help="At most this share goes, worst first.")],
    plan: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Where the plan is written; RUN/prune.json by default."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the pruned tasks to --out.")
    ] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="NEW", help="New .npz or .h5 file of episodes."),
    ] = None,
) -> None:
    """Plan what to drop and why; with --apply, write a pruned copy of the training tasks."""
    from metaaudit.prune import run_prune

    if apply and out is None:
        raise RunError("--apply", "does not say where to", "--out NEW, a new .npz or .h5 file")
    if out is not None and not apply:
        raise RunError("--out", "is not written without --apply", remedy="add --apply")
    lines = run_prune(run, drop, by, max_fraction, plan or run / "prune.json", out)
    for line in lines:
        results().print(line, markup=False, soft_wrap=True)


def _show(run: Path) -> None:
    from metaaudit.reports import print_tables
    from metaaudit.runs.saved import SavedRun

    print_tables(SavedRun.open(run), results())


def main() -> None:
    """Entry point of the ``metaaudit`` command."""
    sys.exit(app())


if __name__ == "__main__":
    main()
