"""``metaaudit train``: the reference meta-trainer from a configuration to a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metaaudit.bilevel import total_gradients
from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.errors import CheckpointError, is_interrupt
from metaaudit.loading import prepare
from metaaudit.manifest import evaluation, inner_warnings
from metaaudit.training import MetaTrainer, TrainingFiles, TrainingState, check_trainable


@dataclass(frozen=True)
class Trained:
    """What training came to.

    Attributes:
        files: Where it is.
        epochs: Number of epochs.
        accuracy: Query accuracy on the evaluation tasks, after adaptation.
        loss: Query loss there.
    """

    files: TrainingFiles
    epochs: int
    accuracy: float
    loss: float


def run(config: Config, messages: Messages, *, resume: bool, overwrite: bool) -> Trained:
    """Meta-trains and saves a checkpoint after every epoch, and numbered ones if asked for.

    Args:
        config: The configuration.
        messages: Told of progress.
        resume: Go on from the saved state.
        overwrite: Replace an existing checkpoint.

    Raises:
        MetaauditError: Something cannot be used, or the loss is not finite.
        KeyboardInterrupt: The checkpoint then is that of the last whole epoch.
    """
    check_trainable(config.model)
    with messages.stage("load"):
        problem = prepare(config)
        files = TrainingFiles.of(config, problem.train, problem.model.source)
    for line in problem.warnings:
        messages.warn(line)
    initial = problem.template
    state = files.load(initial) if resume else TrainingState.initial(initial)
    snapshots = [files.snapshot(epoch) for epoch in files.snapshot_epochs(config.training.epochs)]
    if not (resume or overwrite):
        _check_new(files.checkpoint, *snapshots)
    if missed := [e for e in files.snapshot_epochs(state.epoch) if not files.snapshot(e).exists()]:
        messages.warn(
            f"no numbered checkpoint of epoch {missed[0]}, which was trained before: train anew "
            "with --overwrite for all of them"
        )
    trainer = MetaTrainer(problem.as_trained, problem.train, config.training)
    left = (config.training.epochs - state.epoch) * len(problem.train)
    saved = resume

    def save(state: TrainingState) -> None:
        nonlocal saved
        if not saved and overwrite:
            files.remove_snapshots()
        files.save(state)
        saved = True

    with messages.stage("train", left) as advance:

        def tell(tasks: int, loss: float, accuracy: float) -> None:
            advance(tasks, f"loss {loss:.3f} accuracy {accuracy:.3f}")

        try:
            state = trainer.run(state, save, tell)
        except (KeyboardInterrupt, Exception) as error:
            if saved and is_interrupt(error):  # what is there may be of another run
                messages.say(f"{files.checkpoint} has the last whole epoch; go on with --resume")
            raise
    with messages.stage("evaluate", len(problem.evaluation)) as advance:
        adaptation = problem.as_evaluated(state.params, problem.evaluation)
        found = total_gradients(adaptation, advance)
    for line in inner_warnings(config, adaptation):
        messages.warn(line)
    measured = evaluation(problem.evaluation, found)
    return Trained(files, state.epoch, measured["mean_accuracy"], measured["mean_loss"])


def _check_new(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise CheckpointError(
                path, "exists already", "a new file", "use --resume or --overwrite"
            )
