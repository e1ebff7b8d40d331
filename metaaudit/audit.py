"""``metaaudit score``: the stages of an audit, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaaudit.cache import FactorCache, cache_folder
from metaaudit.config import Config
from metaaudit.console import Messages, silent
from metaaudit.curvature import Network
from metaaudit.errors import RunError, is_interrupt
from metaaudit.influence import bootstrap_interval, harmful_tasks, upper_outliers
from metaaudit.inputs.contents import image_contents, task_content
from metaaudit.labelnoise import LabelNoise
from metaaudit.loading import Weights, load_weights, prepare
from metaaudit.manifest import measurements, provenance
from metaaudit.measuring import Measured, averaged, influence_spread, measure
from metaaudit.problem import Problem
from metaaudit.ranks import ended_by_sigterm
from metaaudit.room import free_again, with_room
from metaaudit.runs.atomic import check_new, new_folder
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.scores import Scores, write_run
from metaaudit.stages import Stages, of_checkpoint
from metaaudit.task_facts import TaskFacts, item_rows, task_kinds, unexplained
from metaaudit.team import ALONE, Team, joined


@ended_by_sigterm()
def run(config: Config, folder: Path, messages: Messages) -> None:
    """Scores every training task and instance and writes the run folder.

    What was computed before an interruption is in the cache, and the same call goes on from there.

    Args:
        config: The configuration.
        folder: The run folder; it appears when it is complete.
        messages: Told of progress.

    Raises:
        MetaauditError: Something cannot be used or finished; no run folder is left behind then.
        KeyboardInterrupt: Likewise.
        SystemExit: By SIGTERM, likewise.
    """
    check_new(folder)
    try:
        with joined() as team:
            audit = prepared(config, messages if team.first else silent(), team)
            scores, evidence, manifest = audit.score()
        if not team.first:  # all have the same results
            return
        with messages.stage("write"), new_folder(folder) as temporary:
            spent = measurements(messages.timings, audit.problem.batching.device)
            write_run(temporary, scores, audit.problem.train, evidence, manifest | spent)
        free_again(audit.problem, audit.cache)
    except (KeyboardInterrupt, Exception) as error:
        if is_interrupt(error):
            messages.say("what was computed is kept: the same command goes on from there")
        raise
    for line in audit.cache.summary():
        messages.say(line)
    for warning in manifest["warnings"]:
        messages.warn(warning)


def finished(config: Config, folder: Path) -> bool:
    """Whether there is a complete run of a configuration already.

    Raises:
        RunError: The folder is there and is no run, or one of another configuration.
    """
    if not folder.exists():
        return False
    if SavedRun.open(folder).manifest["config"] == config.model_dump(mode="json"):
        return True
    raise RunError(
        folder, "is a run of another configuration", "the one that was interrupted", "name another"
    )


@dataclass(frozen=True)
class Audit:
    """One audit: what is computed from what.

    Attributes:
        problem: Tasks, model and learner.
        weights: Of each checkpoint.
        cache: Where what can be reused is kept.
        messages: Told of progress.
        network: The model's layers, where anything is by EK-FAC.
        team: The processes that share the work.
    """

    problem: Problem
    weights: list[Weights]
    cache: FactorCache
    messages: Messages
    network: Network | None
    team: Team

    def stages(self, number: int) -> Stages:
        """The stages of a checkpoint, the first of which has the number 0."""
        of = of_checkpoint(number + 1, len(self.weights))
        parts = (self.problem, self.weights[number], self.cache, self.messages, self.network)
        return Stages.of_checkpoint(*parts, of, self.team)

    def score(self) -> tuple[Scores, dict[str, list[str]], dict[str, Any]]:
        """Runs all stages.

        Returns:
            The scores, sentences on tasks by id, and the manifest without its measurements.
        """
        problem = self.problem
        each = [measure(self.stages(number)) for number in range(len(self.weights))]
        mean = averaged(each)
        noise = mean.labels.judged(problem)
        images = image_contents(problem.train)
        facts = TaskFacts.of(problem.train, problem.evaluation, images)
        scores = self._scores(mean, influence_spread(each), noise, facts, images)
        parts = zip(self.weights, each, strict=True)
        manifest = {
            **provenance(problem, self.cache),
            "checkpoints": [
                {"path": str(w.path), "sha256": w.sha256, **one.summary} for w, one in parts
            ],
            **mean.manifest,
            "label_noise": {
                "harder": noise.harder,
                "estimated_wrong_labels": float(noise.wrong.sum()),
            },
            "warnings": [
                *problem.warnings,
                *self.cache.warnings,
                *mean.warnings,
                *noise.warnings,
                *facts.warnings(problem.train),
            ],
        }
        manifest["coverage"]["items"] = len(noise.items)
        return scores, facts.sentences(problem.train, noise.contradictions), manifest

    def _scores(
        self,
        mean: Measured,
        spread: np.ndarray | None,
        noise: LabelNoise,
        facts: TaskFacts,
        images: dict[int, str],
    ) -> Scores:
        config, train = self.problem.config, self.problem.train
        tasks, instances = mean.scores.task_influence, mean.scores.instance_influence
        harm = harmful_tasks(tasks, config.influence.fdr, config.influence.effect)
        # Losses multiply rather than add up: their logarithms have two tails alike.
        loss = np.log(np.maximum(mean.outer_loss, np.finfo(np.float32).tiny))
        fdr = config.mislabel.fdr
        odd = unexplained(upper_outliers(loss, fdr, config.influence.effect), noise, fdr)
        return Scores(
            task_influence=tasks,
            targets=self._target_ids(),
            interval=bootstrap_interval(tasks),
            influence_spread=spread,
            influence_z=harm.z,
            harmful_q=harm.q_value,
            harmful=harm.flagged,
            label_noise=noise.label_noise,
            noisy_q=noise.noisy_q,
            contradiction=noise.contradictions.ratio,
            contradictory_q=noise.contradictions.q_value,
            outlier_z=odd.z,
            outlier_q=odd.q_value,
            duplicates=facts.duplicates,
            kinds=task_kinds(noise, odd, facts.duplicates, fdr),
            alignment=mean.alignment,
            outer_loss=mean.outer_loss,
            grad_norm=mean.grad_norm,
            contents=[task_content(task, images) for task in train.tasks],
            instance_influence=instances,
            self_influence=mean.self_influence,
            loss=mean.loss,
            signal=noise.signal,
            margin=noise.margin,
            mislabel_score=noise.score,
            wrong=noise.wrong,
            q_value=noise.q_value,
            suggested_label=noise.suggested,
            mislabeled=noise.mislabeled,
            trusted_score=noise.trusted_score,
            items=item_rows(noise, instances, images),
            item_wrong=np.array([item.wrong for item in noise.items]),
        )

    def _target_ids(self) -> list[str]:
        each = self.problem.config.influence.targets == "each"
        return self.problem.evaluation.task_ids if each else ["mean"]


def prepared(config: Config, messages: Messages, team: Team = ALONE, *, keep: bool = True) -> Audit:
    """An audit with everything loaded and nothing computed.

    Args:
        config: The configuration.
        messages: Told of progress.
        team: The processes that share the work.
        keep: Whether the number of tasks at once is kept, for when the run is interrupted.

    Raises:
        UsageError: Something that the configuration names cannot be used.
    """
    cache = FactorCache(cache_folder(), say=messages.say)
    with messages.stage("load"):
        problem = prepare(config)
        weights = [load_weights(problem, path) for path in config.checkpoints]
        network = problem.scored_layers()
        problem = with_room(problem, cache, team, keep=keep)  # once nothing more can be refused
    return Audit(problem, weights, cache, messages, network, team)
