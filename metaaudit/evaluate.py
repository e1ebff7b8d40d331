"""``metaaudit evaluate``: experiments on how far the scores can be trusted."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from metaaudit import meta_train
from metaaudit.cache import FactorCache, cache_folder
from metaaudit.config import Config
from metaaudit.console import Messages, silent
from metaaudit.errors import CheckpointError, IncompleteError, UsageError, is_interrupt
from metaaudit.fidelity.experiments import check, experiment
from metaaudit.fidelity.results import Result
from metaaudit.fidelity.retraining import Retrainer
from metaaudit.fidelity.workbench import Workbench
from metaaudit.fidelity.writing import named_apart, print_results, write_evaluation
from metaaudit.inputs.checkpoints import read_checkpoint
from metaaudit.loading import Weights, load_weights, prepare
from metaaudit.manifest import measurements, provenance
from metaaudit.problem import Problem
from metaaudit.ranks import ended_by_sigterm, is_main, take_device
from metaaudit.runs.atomic import check_new, new_folder
from metaaudit.training import TrainingFiles, fingerprint

_SNAPSHOT = re.compile(r"(?P<run>.+)\.epoch-\d+\.safetensors")
WAIT_S = 1.0


@ended_by_sigterm()
def run(
    config: Config, folder: Path, messages: Messages, budget_s: float | None = None
) -> list[Result]:
    """Runs all experiments and writes their results.

    Args:
        config: The configuration.
        folder: Where the results go; it appears when they are whole.
        messages: Told of progress.
        budget_s: Seconds from when the checkpoints are there, after which no more is retrained;
            absent: there is no end.

    Raises:
        MetaauditError: Something cannot be used or finished.
        KeyboardInterrupt: What was retrained by then is in the cache.
        SystemExit: By SIGTERM, likewise.
    """
    if budget_s is not None and not math.isfinite(budget_s):
        raise UsageError("--budget", f"is {budget_s}", "a number of minutes", "leave it out")
    if not is_main():
        return _results(_bench(config, silent(), budget_s))
    check_new(folder)
    try:
        with new_folder(folder) as temporary:
            bench = _bench(config, messages, budget_s)
            results = _results(bench)
            with messages.stage("write"):
                write_evaluation(temporary, results, _facts(bench))
    except (KeyboardInterrupt, Exception) as error:
        if is_interrupt(error):
            messages.say("what was retrained is kept: the same command goes on from there")
        raise
    for warning in bench.cache.warnings:
        messages.warn(warning)
    return results


def conclude(results: Sequence[Result], console: Console) -> None:
    """Prints the results, in the process that wrote them; the others say nothing.

    Raises:
        IncompleteError: The time was up before all was done.
    """
    if not is_main():  # an error there would make torchrun end the one that still writes
        return
    print_results(results, console)
    left = [one.kind for one in results if not one.complete]
    if left:
        raise IncompleteError(
            "evaluate",
            f"the time was up before {', '.join(dict.fromkeys(left))} was done",
            "a longer --budget",
            "the same command with a new --run goes on from there",
        )


def _results(bench: Workbench) -> list[Result]:
    asked = bench.config.evaluate.experiments
    return named_apart([experiment(one.kind)(bench, one) for one in asked])


def _bench(config: Config, messages: Messages, budget_s: float | None) -> Workbench:
    take_device()
    with messages.stage("load"):
        problem = prepare(config)
        cache = FactorCache(cache_folder(), say=messages.say)
    for line in problem.warnings:
        messages.warn(line)
    for asked in config.evaluate.experiments:  # lest an hour of work come before the message
        check(problem, asked)
    train_missing(problem, messages)
    weights = tuple(load_weights(problem, path) for path in config.checkpoints)
    weights = tuple(
        replace(one, warnings=(*one.warnings, *_other_tasks(problem, one))) for one in weights
    )
    for one in weights:
        for line in one.warnings:
            messages.warn(line)
    deadline = None if budget_s is None else time.monotonic() + budget_s
    retrainer = Retrainer(problem, cache, messages, config.evaluate.jobs, deadline)
    return Workbench(problem, weights, cache, messages, retrainer)


@dataclass(frozen=True)
class _Training:
    """A training run that a checkpoint comes from.

    Attributes:
        config: With one checkpoint, and its seed.
        checkpoints: Those of the configuration that it gives: itself or numbered ones of it.
    """

    config: Config
    checkpoints: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """What it writes."""
        return self.config.checkpoints[0]


def train_missing(problem: Problem, messages: Messages) -> None:
    """Trains the checkpoints that do not exist, and goes on with those that were interrupted.

    The i-th run has ``training.seed + i``. Under ``torchrun`` the first process trains and the
    others wait.

    Raises:
        CheckpointError: A numbered checkpoint is missing, though what it is of is there, or one is
            in a format that is not written.
    """
    for path in problem.config.checkpoints:
        if path.suffix != ".safetensors" and not path.exists():
            remedy = "check the path; to have it trained, name a .safetensors file"
            raise CheckpointError(path, "is not there", "a checkpoint", remedy)
    for training in _trainings(problem.config):
        missing = [path for path in training.checkpoints if not path.exists()]
        resume = _interrupted(problem, training)
        while (missing or resume) and not is_main():
            time.sleep(WAIT_S)
            missing = [path for path in training.checkpoints if not path.exists()]
            resume = _interrupted(problem, training)
        if not (missing or resume):
            continue
        if training.path.exists() and not resume:
            raise CheckpointError(
                missing[0],
                f"is not there, though {training.path.name} is",
                "a checkpoint that training with training.snapshots kept",
                "train anew with `metaaudit train --overwrite`",
            )
        seed = training.config.training.seed
        what = "goes on with its training" if resume else "is not there and is trained first"
        messages.say(f"{training.path} {what} (training.seed {seed})")
        meta_train.run(training.config, messages, resume=resume, overwrite=False)


def _trainings(config: Config) -> list[_Training]:
    by_run: dict[Path, list[Path]] = {}
    for path in config.checkpoints:
        numbered = _SNAPSHOT.fullmatch(path.name) if config.training.snapshots else None
        whole = path.with_name(f"{numbered['run']}.safetensors") if numbered else path
        by_run.setdefault(whole, []).append(path)
    found = []
    for number, (whole, paths) in enumerate(by_run.items()):
        training = config.training.model_copy(update={"seed": config.training.seed + number})
        own = config.model_copy(update={"checkpoint": whole, "training": training})
        found.append(_Training(own, tuple(paths)))
    return found


def _interrupted(problem: Problem, training: _Training) -> bool:
    """Whether a checkpoint is of this very training, which stopped before its last epoch."""
    if not training.path.exists() or training.path.suffix != ".safetensors":
        return False
    files = TrainingFiles.of(training.config, problem.train, problem.model.source)
    metadata = read_checkpoint(files.checkpoint).metadata
    own = metadata.get("fingerprint") == files.fingerprint and files.state.exists()
    return own and int(metadata["epoch"]) < training.config.training.epochs


def _other_tasks(problem: Problem, weights: Weights) -> Sequence[str]:
    """A line if ``metaaudit train`` wrote a checkpoint from other tasks than these."""
    metadata = read_checkpoint(weights.path).metadata
    if not {"fingerprint", "recipe"} <= metadata.keys():
        return ()  # from elsewhere: there is nothing to compare with
    parts = (metadata["recipe"], problem.config, problem.train, problem.model.source)
    if metadata["fingerprint"] == fingerprint(*parts):
        return ()
    return (
        f"{weights.path} was trained on other tasks than these, or by other code or in another "
        "precision: name a new file as checkpoint to train on these",
    )


def _facts(bench: Workbench) -> dict[str, Any]:
    """What the results depend on, and what they cost."""
    facts = provenance(bench.problem, bench.cache)
    for name in ("schema_version", "cache", "seeds"):
        del facts[name]
    return {
        **facts,
        "checkpoints": [{"path": str(w.path), "sha256": w.sha256} for w in bench.weights],
        "warnings": [
            *bench.problem.warnings,
            *(line for w in bench.weights for line in w.warnings),
            *bench.cache.warnings,
        ],
        "cores": os.cpu_count(),
        **measurements(bench.messages.timings, bench.problem.batching.device),
    }
