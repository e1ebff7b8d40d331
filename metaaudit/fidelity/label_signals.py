"""What ``score`` makes of the labels of the training tasks, over all checkpoints."""

from __future__ import annotations

from metaaudit.fidelity.workbench import Workbench
from metaaudit.label_stages import LabelEvidence, LabelStages
from metaaudit.labelnoise import LabelNoise
from metaaudit.stages import Stages, of_checkpoint


def label_noise(bench: Workbench) -> LabelNoise:
    """By the signal of the ``mislabel`` section."""
    problem, count, each = bench.problem, len(bench.weights), []
    network = problem.layers() if problem.config.scores_by_ekfac else None
    parts = bench.cache, bench.messages, network
    for number, weights in enumerate(bench.weights, start=1):
        stages = Stages.of_checkpoint(problem, weights, *parts, of_checkpoint(number, count))
        adaptations = stages.training_adaptation(), stages.evaluation_adaptation()
        each.append(LabelEvidence.of(LabelStages(stages), *adaptations))
    return LabelEvidence.averaged(each).judged(problem)
