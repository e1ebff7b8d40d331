"""What ``score`` makes of the labels of the training tasks, over all checkpoints."""

from __future__ import annotations

from metaaudit.fidelity.workbench import Workbench
from metaaudit.labelnoise import LabelNoise
from metaaudit.measuring import averaged, measure
from metaaudit.stages import Stages, of_checkpoint


def label_noise(bench: Workbench) -> LabelNoise:
    """By the signal of the ``mislabel`` section."""
    problem, count = bench.problem, len(bench.weights)
    network = problem.layers() if problem.config.scores_by_ekfac else None
    parts = (bench.cache, bench.messages, network)
    each = [
        measure(Stages.of_checkpoint(problem, weights, *parts, of_checkpoint(number, count)))
        for number, weights in enumerate(bench.weights, start=1)
    ]
    return averaged(each).label_noise(problem)
