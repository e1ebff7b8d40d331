"""``metaaudit prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from metaaudit.console import Messages, results
from metaaudit.options import RunArgument

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
        typer.Option(
            help="Instances of every class that each task's support, or a labelled data set, keeps;"
            " 1 by default."
        ),
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
        typer.Option(metavar="NEW", help="New .npz or .h5 file of episodes, or of labelled data."),
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
