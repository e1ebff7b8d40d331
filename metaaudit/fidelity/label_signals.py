"""What ``score`` makes of the labels of the training tasks, over all checkpoints."""

from __future__ import annotations

from metaaudit.fidelity.workbench import Workbench
from metaaudit.labelnoise import LabelNoise, detect
from metaaudit.measuring import averaged, measure
from metaaudit.stages import Stages


def label_noise(bench: Workbench) -> LabelNoise:
    """By the signal of the ``mislabel`` section."""
    problem = bench.problem
    config = problem.config
    by_layers = config.influence.uses_ekfac or config.mislabel.signal == "self-influence"
    parts = (bench.cache, bench.messages, problem.layers() if by_layers else None)
    several = len(bench.weights) > 1
    mean = averaged(
        [
            measure(
                Stages.of_checkpoint(
                    problem, weights, *parts, f" of checkpoint {number}" if several else ""
                )
            )
            for number, weights in enumerate(bench.weights, start=1)
        ]
    )
    return detect(
        problem.train, mean.evidence, problem.evaluation, mean.trusted_evidence, config.mislabel
    )
