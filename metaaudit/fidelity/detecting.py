"""All that an audit can rank labels and tasks by, at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from metaaudit.config.mislabel import Signal
from metaaudit.errors import ModelError
from metaaudit.fidelity.workbench import Workbench
from metaaudit.label_stages import LabelEvidence
from metaaudit.labelnoise import LabelNoise, judge
from metaaudit.labelnoise.detection import signal_values
from metaaudit.measuring import Measured, averaged, measure
from metaaudit.problem import Problem
from metaaudit.stages import Stages

Floats = npt.NDArray[np.float64]

APART: tuple[Signal, ...] = ("leave-one-out", "self-influence", "own-influence")
"""Signals that need evidence of their own."""

SHARED: tuple[Signal, ...] = ("combined", "loss")
"""The signals with whose evidence come all the others'; the first that a learner has is taken."""


@dataclass(frozen=True)
class Known:
    """What an audit knows of labels and tasks, over all checkpoints.

    Attributes:
        noise: What it makes of the configured signal.
        labels: ``[n_instances]`` by signal, higher where a label is more suspicious.
        tasks: ``[n_tasks]`` by signal, likewise.
        warnings: One line for each thing that did not go as asked, or is left out.
    """

    noise: LabelNoise
    labels: dict[str, Floats]
    tasks: dict[str, Floats]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, bench: Workbench) -> Known:
        """Computes every signal with every checkpoint, averaged as ``score`` does."""
        problem, warnings = bench.problem, []
        network = None
        try:
            network = problem.layers()
        except ModelError as error:
            if problem.config.scores_by_ekfac:
                raise
            warnings.append(f"self-influence is left out, which needs EK-FAC: {error}")
        each = [_Checkpoint.of(stages) for stages in bench.stages(network)]
        mean = averaged([one.measured for one in each])
        noise = mean.labels.judged(problem)
        return cls(
            noise,
            {**_label_signals(problem, each), "influence": mean.scores.instance_influence},
            {
                "label_noise": noise.label_noise,
                **({"contradiction": noise.contradictions.ratio} if problem.config.adapts else {}),
                "influence": mean.scores.task_influence.mean(axis=1),
                "loss": mean.outer_loss,
                "grad-norm": mean.grad_norm,
            },
            (*warnings, *mean.warnings, *noise.warnings),
        )


@dataclass(frozen=True)
class _Checkpoint:
    """What one checkpoint says.

    Attributes:
        measured: All that ``score`` computes.
        labels: What the learner says of them, by signal.
    """

    measured: Measured
    labels: dict[Signal, LabelEvidence]

    @classmethod
    def of(cls, stages: Stages) -> _Checkpoint:
        allowed = stages.problem.config.signals
        apart = [one for one in APART if stages.network or one != "self-influence"]
        signals = [_shared(allowed), *(one for one in apart if one in allowed)]
        return cls(measure(stages), {one: _evidence(stages, one) for one in signals})


def _shared(allowed: tuple[Signal, ...]) -> Signal:
    return next(one for one in SHARED if one in allowed)


def _evidence(stages: Stages, signal: Signal) -> LabelEvidence:
    problem = stages.problem
    mislabel = problem.config.mislabel.model_copy(update={"signal": signal})
    config = problem.config.model_copy(update={"mislabel": mislabel})
    return LabelEvidence.at(replace(stages, problem=replace(problem, config=config)))


def _label_signals(problem: Problem, each: list[_Checkpoint]) -> dict[str, Floats]:
    means = {
        kind: LabelEvidence.averaged([one.labels[kind] for one in each]).training
        for kind in each[0].labels
    }
    allowed = problem.config.signals
    shared = _shared(allowed)
    judgement = judge(means[shared].crossfit, problem.train)
    found: dict[str, Floats] = {}
    for signal in allowed:
        evidence = means.get(signal if signal in APART else shared)
        if evidence is not None:
            found[signal] = signal_values(signal, evidence, judgement, problem.train)
    return found
