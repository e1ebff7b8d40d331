"""Digits, planted errors, meta-training, audit and report, one after the other."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from metaaudit import audit, meta_train
from metaaudit.config import load_config
from metaaudit.console import Messages
from metaaudit.demo.digits import digit_tasks
from metaaudit.demo.findings import found
from metaaudit.errors import RunError
from metaaudit.inputs.episodes import write_episodes
from metaaudit.reports import print_tables, render
from metaaudit.runs.atomic import write_text
from metaaudit.runs.saved import SavedRun
from metaaudit.training import plant

PLANTED = "planted.csv"

CONFIG = """\
# Written by `metaaudit demo`. Try: metaaudit score metaaudit.yaml --run again
model: {name: conv4, hidden: 16, in_channels: 1, ways: 5}
learner: {name: maml, inner_lr: 0.4, steps: 3}
checkpoint: checkpoint.safetensors
tasks: {format: episodes, train: tasks-train.npz, eval: tasks-eval.npz}
training: {epochs: 15, batch: 20, lr: 0.005, weight_decay: 0.001, seed: 0}
"""

WAYS = 5
FLIP_SHARE = 0.1


def run_demo(folder: Path, messages: Messages, out: Console, *, overwrite: bool) -> None:
    """Writes data, checkpoint, scores and report into ``folder`` and prints what was found.

    Args:
        folder: A new folder.
        messages: Told of progress.
        out: Where the result is printed.
        overwrite: Replace what an earlier demo wrote.

    Raises:
        MetaauditError: scikit-learn is missing, or the folder cannot be used.
    """
    train, evaluation = digit_tasks(n_train=120, n_eval=40, ways=WAYS, shots=5, queries=5, seed=0)
    _make_room(folder, overwrite)
    planted = plant(train, flip_tasks=30, flip_share=FLIP_SHARE, permute_tasks=6, seed=0)
    messages.say(
        f"scikit-learn's digits as {len(train)} {WAYS}-way tasks; "
        f"{int(planted.wrong.sum())} wrong labels planted: {FLIP_SHARE:.0%} of the "
        f"instances of {len(planted.flipped)} tasks, and the query labels of "
        f"{len(planted.permuted)} permuted tasks"
    )
    write_text(folder / PLANTED, planted.csv())
    write_episodes(folder / "tasks-train.npz", planted.task_set)
    write_episodes(folder / "tasks-eval.npz", evaluation)
    write_text(folder / "metaaudit.yaml", CONFIG)
    config = load_config(folder / "metaaudit.yaml")
    trained = meta_train.run(config, messages, resume=False, overwrite=False)
    messages.say(f"accuracy on {len(evaluation)} tasks of unseen classes: {trained.accuracy:.3f}")
    audit.run(config, folder / "run", messages)
    run = SavedRun.open(folder / "run")
    with messages.stage("report"):
        write_text(folder / "report.html", render(run, "html"))
    print_tables(run, out)
    for line in found(run, planted):
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"report: {(folder / 'report.html').resolve()}", markup=False, soft_wrap=True)


def _make_room(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise RunError(folder, "exists already", "a new folder", "name another, or use --overwrite")
    if not (folder / PLANTED).is_file():
        raise RunError(folder, "was not written by a demo", "a demo's folder", "name another")
    shutil.rmtree(folder)
