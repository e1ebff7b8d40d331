"""``metaaudit prune``: a plan from a saved run and, if asked for, what comes of it.

That is a changed copy of the training tasks, an edited checkpoint, or both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.errors import CheckpointError, RunError
from metaaudit.inputs.arrays import check_suffix
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks, write_tasks
from metaaudit.printable import printable
from metaaudit.pruning import PrunePlan, apply_plan, check_plan, make_plan, read_plan
from metaaudit.pruning.describing import describe
from metaaudit.pruning.follow_up import (
    check_commands,
    evaluation_copy,
    needs_evaluation_copy,
    score_command,
)
from metaaudit.pruning.plan import By, Subject
from metaaudit.runs.atomic import is_stream, json_text, resolved, write_json
from metaaudit.runs.saved import SavedRun, check_no_input, check_output


@dataclass(frozen=True)
class PruneRequest:
    """The options of the command; ``None`` where one is not given.

    Attributes:
        drop: What goes.
        relabel: Whether labels are changed instead.
        by: The score or rule that decides what goes.
        max_fraction: Largest share to change.
        min_per_class: So many support instances of every class stay in each task, or so many
            instances of every class in a labelled data set.
        plan: Where the plan is written.
        from_plan: A plan to use instead of making one.
        apply: Whether ``out`` is written.
        out: New file of the changed training tasks.
        edited: New file of the edited checkpoint.
    """

    drop: Subject | None = None
    relabel: bool = False
    by: By | None = None
    max_fraction: float | None = None
    min_per_class: int | None = None
    plan: Path | None = None
    from_plan: Path | None = None
    apply: bool = False
    out: Path | None = None
    edited: Path | None = None

    def check(self) -> None:
        """Refuses options that do not go together.

        Raises:
            RunError: They do not.
        """
        if self.apply and self.out is None:
            raise RunError("--apply", "does not say where to", "--out NEW, a new .npz or .h5 file")
        if self.out is not None and not self.apply:
            raise RunError("--out", "is not written without --apply", remedy="add --apply")
        if self.relabel and self.edited is not None:
            raise _not_of_labels()
        if self.from_plan is not None:
            if given := self._of_a_new_plan():
                raise RunError("--from-plan", f"cannot be combined with {given[0]}", "one of them")
            return
        if self.relabel and (self.drop or self.by):
            other = "--drop" if self.drop else "--by"
            raise RunError("--relabel", f"cannot be combined with {other}", "one of them")
        if not self.relabel and self.drop is None:
            raise RunError(
                "prune", "does not say what to change", "--drop, --relabel or --from-plan"
            )
        if not self.relabel and self.by is None:
            raise RunError("--drop", "does not say what decides", "--by, a score or a rule")
        if self.max_fraction is None:
            raise RunError("--max-fraction", "is missing", "the largest share to change")

    def _of_a_new_plan(self) -> list[str]:
        options = {
            "--drop": self.drop,
            "--relabel": self.relabel or None,
            "--by": self.by,
            "--max-fraction": self.max_fraction,
            "--min-per-class": self.min_per_class,
            "--plan": self.plan,
        }
        return [name for name, value in options.items() if value is not None]


def run_prune(run: Path, request: PruneRequest, messages: Messages) -> list[str]:
    """Makes or reads the plan, and writes it and all that was asked for.

    Args:
        run: A finished run.
        request: What to do.
        messages: Told of the progress of editing a checkpoint.

    Returns:
        Lines that tell what changes and why, and how to check it.

    Raises:
        MetaauditError: The options, the run, its data or the plan cannot be used, or a guard
            stopped the plan, and nothing is written then; or something cannot be written.
    """
    request.check()
    plan_file = None if request.from_plan else request.plan or run / "prune.json"
    if plan_file is not None:
        check_output(run, plan_file)
        if plan_file.is_dir():
            raise RunError(plan_file, "is a folder", "a file for the plan", "name a file in it")
        if is_stream(plan_file):
            raise RunError(plan_file, "is no regular file", "a file for the plan", "name another")
    _check_targets(plan_file, request)
    saved = SavedRun.open(run)
    plan = _plan(saved, request)
    if plan_file is not None:
        check_no_input(saved, plan_file)
        _keep_edited(plan_file, plan)
    written = _written(saved, plan, plan_file, request, messages)
    lines = describe(plan)
    # The plan comes first: data without the reasons for what it lacks would be of little use.
    if plan_file is not None:
        write_json(plan_file, plan.to_json())
    for write in written:
        lines += write()
    if plan.items:
        lines += _how_to_check(saved, request)
    return [printable(line) for line in (*lines, f"plan: {plan_file or request.from_plan}")]


def _keep_edited(plan_file: Path, plan: PrunePlan) -> None:
    """Refuses to write over another plan, into which somebody may have put work."""
    if plan_file.exists() and plan_file.read_bytes() != json_text(plan.to_json()).encode():
        raise RunError(
            plan_file,
            "holds another plan, perhaps an edited one",
            "a new file",
            "name another with --plan, or remove it",
        )


def _plan(saved: SavedRun, request: PruneRequest) -> PrunePlan:
    if request.from_plan is not None:
        return check_plan(read_plan(request.from_plan), saved, request.from_plan)
    assert request.max_fraction is not None
    by: By = "mislabeled" if request.by is None else request.by
    least = 1 if request.min_per_class is None else request.min_per_class
    return make_plan(saved, request.drop, by, request.max_fraction, least)


def _check_targets(plan_file: Path | None, request: PruneRequest) -> None:
    out, edited = request.out, request.edited
    for path in (out, edited):
        if path is not None and (path.exists() or path.is_symlink()):
            raise RunError(path, "exists already", "a new file", "name another")
    for path in (out, edited):
        if path is not None and plan_file and resolved(path) == resolved(plan_file):
            raise RunError(path, "is the file of the plan too", "two files", "name another")
    if out is not None:
        check_suffix(out)
    if edited is not None and edited.suffix != ".safetensors":
        raise CheckpointError(edited, f"has the suffix '{edited.suffix}'", ".safetensors")


def _written(
    saved: SavedRun,
    plan: PrunePlan,
    plan_file: Path | None,
    request: PruneRequest,
    messages: Messages,
) -> list[Callable[[], list[str]]]:
    """What writes the files that were asked for, once all that can be refused has been."""
    writers: list[Callable[[], list[str]]] = []
    if request.out is not None:
        copy = evaluation_copy(request.out) if needs_evaluation_copy(saved) else None
        if copy is not None and (copy.exists() or copy == plan_file):
            what = "exists already" if copy.exists() else "is the file of the plan too"
            raise RunError(copy, f"{what}, where the evaluation tasks would go", "a new file")
        writers.append(_pruned(saved, plan, request.out, copy))
    if request.edited is not None:
        _check_editable(saved, plan)
        from metaaudit.editing import edit

        edited, path = edit(saved, _config(saved), plan, messages), request.edited

        def write() -> list[str]:
            edited.write(path)
            return [f"wrote a checkpoint that moved by {edited.change:.2%} of its norm: {path}"]

        writers.append(write)
    return writers


def _pruned(
    saved: SavedRun, plan: PrunePlan, out: Path, copy: Path | None
) -> Callable[[], list[str]]:
    config = _config(saved)
    train, evaluation = load_tasks(config.tasks)
    if config.plant.anything:
        from metaaudit.training.planting import planted

        train = planted(train, config.plant).task_set
    _check_unchanged(saved, "train", "training", train)
    if copy is not None:
        _check_unchanged(saved, "eval", "evaluation", evaluation)
    pruned = apply_plan(plan, train)

    def write() -> list[str]:
        write_tasks(out, pruned)
        lines = [f"wrote {pruned.size}: {out}"]
        if copy is not None:
            write_tasks(copy, evaluation)
            lines.append(f"wrote the {len(evaluation)} evaluation tasks: {copy}")
        return lines

    return write


def _check_editable(saved: SavedRun, plan: PrunePlan) -> None:
    where = "--edit-checkpoint"
    if plan.relabels:
        raise _not_of_labels()
    if len(saved.manifest["checkpoints"]) > 1:
        raise RunError(
            where,
            f"would have to choose among the {len(saved.manifest['checkpoints'])} checkpoints of "
            "the run",
            "a run of one checkpoint",
            "score that one alone",
        )
    if not plan.items:
        raise RunError(where, "has nothing to remove: the plan drops nothing", "items in the plan")


def _not_of_labels() -> RunError:
    return RunError(
        "--edit-checkpoint",
        "cannot follow a changed label",
        "a plan that only drops",
        "train on the changed tasks",
    )


def _config(saved: SavedRun) -> Config:
    try:
        return Config.model_validate_json(json.dumps(saved.manifest["config"]))
    except ValueError as error:
        raise RunError(
            saved.path / "manifest.json",
            f"holds a configuration that cannot be used ({error})",
            remedy="score again into a new folder",
        ) from None


def _check_unchanged(saved: SavedRun, part: str, called: str, tasks: TaskSet) -> None:
    if tasks.content_hash != saved.manifest["data"][part]["sha256"]:
        raise RunError(
            saved.path,
            f"its {called} tasks have changed on disk since they were scored",
            "the same data",
            "score again",
        )


def _how_to_check(saved: SavedRun, request: PruneRequest) -> list[str]:
    measured = saved.manifest["evaluation"]
    lines = [
        f"in this run: evaluation loss {measured['mean_loss']:.3f}, accuracy "
        f"{measured['mean_accuracy']:.3f}; to check, with the run's configuration for CONFIG:"
    ]
    if request.edited is not None:
        lines.append(f"  {score_command(saved, resolved(request.edited))}")
    if request.out is not None or request.edited is None:
        new = () if request.out is None else (resolved(request.out),)
        lines += [f"  {command}" for command in check_commands(saved, *new)]
    return lines
