"""What ``score`` makes of the labels of the training tasks, over all checkpoints."""

from __future__ import annotations

from metaaudit.fidelity.workbench import Workbench
from metaaudit.label_stages import LabelEvidence
from metaaudit.labelnoise import LabelNoise


def label_noise(bench: Workbench) -> LabelNoise:
    """By the signal of the ``mislabel`` section."""
    problem = bench.problem
    each = [LabelEvidence.at(stages) for stages in bench.stages(problem.scored_layers())]
    return LabelEvidence.averaged(each).judged(problem)
