"""Editing a checkpoint by influence, against retraining without the removed data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from metaaudit.cache import FactorCache
from metaaudit.config.evaluate import CandidateConfig, EditingConfig
from metaaudit.errors import ConfigError, MetaauditError, TaskSetError
from metaaudit.fidelity.candidates import default_candidates
from metaaudit.fidelity.comparison import COLUMNS, Comparison, Outcome, row
from metaaudit.fidelity.edits import ASCENT_STEPS, EDITS, edit
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.retraining import Retrained, Retraining
from metaaudit.fidelity.without import Removable, Without
from metaaudit.fidelity.workbench import Workbench, configured
from metaaudit.problem import Problem

RETRAINED, UNEDITED = EditingConfig.reserved
SELECTING = ("tracin", "trak")
"""Methods that do not edit: as the paper has them, what they rank first goes before retraining."""
CURVATURES = ("sampled-fisher", "task-fisher", "ekfac", "jacobian")
"""Of the default candidates: solving with the others takes longer than training."""

WHAT = {
    "tasks": "training tasks",
    "training-instances": "training instances (support)",
    "validation-instances": "validation instances (query)",
}


@dataclass(frozen=True)
class Trial:
    """A random removal.

    Attributes:
        fraction: Share that goes.
        without: What goes, and what stays.
    """

    fraction: float
    without: Without


@dataclass(frozen=True)
class Selection:
    """What a method that does not edit removes.

    Attributes:
        name: Of the candidate.
        fraction: Share that goes.
        without: The most harmful ones, and what stays.
        seconds: What scoring took, with nothing in the cache.
    """

    name: str
    fraction: float
    without: Without
    seconds: float


@dataclass(frozen=True)
class Answers:
    """What the candidates say before anything is retrained.

    Attributes:
        edits: By candidate, one for each trial.
        selections: In the order of candidates and fractions.
        left_out: A line for each default candidate that model or learner does not allow.
        warnings: By candidate.
    """

    edits: dict[str, list[Outcome]] = field(default_factory=dict)
    selections: list[Selection] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)


def check(problem: Problem, config: EditingConfig) -> None:
    """Refuses too few tasks, and an edit of several checkpoints.

    Raises:
        ConfigError: A candidate that edits names a number of checkpoints.
        TaskSetError: There is one task.
    """
    if len(problem.train) < 2:
        raise TaskSetError("tasks", "has one training task", "two or more", "to leave some out")
    for one in config.candidates or ():
        edits = configured(problem.config, one).influence.method in EDITS
        if edits and one.checkpoints not in (None, 1):
            raise ConfigError(
                f"evaluate: candidate {one.name}: checkpoints",
                "an edit is of the last checkpoint alone",
                "1, or nothing",
            )


def run(bench: Workbench, config: EditingConfig) -> Result:
    """Edits, retrains, and compares."""
    check(bench.problem, config)
    train = bench.problem.train
    removable = Removable(train, config.drop)
    trials = [
        Trial(fraction, removable.at_random(fraction, np.random.default_rng([config.seed, i, j])))
        for i, fraction in enumerate(config.fractions)
        for j in range(config.repeats)
    ]
    answers = ask(bench, config, removable, trials)
    wanted = [one.without for one in trials] + [one.without for one in answers.selections]
    seed = bench.config.training.seed
    retrained = bench.retrain([Retraining(one.task_set, seed) for one in wanted])
    return _result(bench, config, trials, answers, retrained)


def ask(
    bench: Workbench, config: EditingConfig, removable: Removable, trials: Sequence[Trial]
) -> Answers:
    """Every candidate's edits, or what it selects; what can fail comes before what takes long."""
    answers = Answers()
    for candidate in config.candidates or _defaults(bench):
        try:
            if bench.configured(candidate).influence.method in EDITS:
                answers.edits[candidate.name] = _edits(bench, candidate, trials, answers)
            else:
                answers.selections.extend(_selections(bench, candidate, config, removable))
        except MetaauditError as error:
            if config.candidates:
                raise
            answers.left_out.append(f"{candidate.name} is left out: {error}")
    return answers


def _defaults(bench: Workbench) -> list[CandidateConfig]:
    chosen = []
    for candidate in default_candidates(bench.config.learner.name):
        influence = candidate.influence
        if influence.get("curvature", CURVATURES[0]) in CURVATURES and (
            influence["method"] in (*EDITS, *SELECTING)
        ):
            chosen.append(candidate)
    return chosen


def _edits(
    bench: Workbench, candidate: CandidateConfig, trials: Sequence[Trial], answers: Answers
) -> list[Outcome]:
    found = []
    for trial in trials:
        done = edit(bench, candidate, trial.without.removal)
        found.append(Outcome(done.params, bench.performance(done.params), done.seconds))
        lines = list(done.warnings)
        if not np.isfinite(found[-1].performance.losses).all():
            lines.append("an edit has losses that are not finite, which no mean counts")
        if lines:
            known = answers.warnings.setdefault(candidate.name, [])
            known += [line for line in lines if line not in known]
    return found


def _selections(
    bench: Workbench, candidate: CandidateConfig, config: EditingConfig, removable: Removable
) -> list[Selection]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        cold = replace(bench, cache=FactorCache(Path(folder)))
        scores = cold.scores(candidate, by_instance=config.drop != "tasks")
        seconds = time.perf_counter() - started
    return [
        Selection(candidate.name, fraction, removable.most_harmful(fraction, scores), seconds)
        for fraction in config.fractions
    ]


def _result(
    bench: Workbench,
    config: EditingConfig,
    trials: Sequence[Trial],
    answers: Answers,
    retrained: Sequence[Retrained | None],
) -> Result:
    params = bench.weights[-1].params
    original = Outcome(params, bench.performance(params), 0.0)
    outcomes = [
        None if one is None else Outcome(one.params, one.performance, one.seconds)
        for one in retrained
    ]
    tables, figures = [], []
    for fraction in config.fractions:
        rows = _rows(fraction, original, trials, answers, outcomes)
        name = f"editing-{config.drop}-{100 * fraction:g}"
        title = f"Without {100 * fraction:g}% of the {WHAT[config.drop]}"
        tables.append(Table(name, title, COLUMNS, rows))
        figures.append(_figure(name, title, rows))
    return Result(
        config.kind,
        f"Does editing by influence do what retraining without {WHAT[config.drop]} does?",
        tuple(tables),
        tuple(figures),
        _notes(bench, config, answers),
        complete=None not in retrained,
        details={"retrained": {"done": sum(map(bool, retrained)), "asked": len(retrained)}},
    )


def _rows(
    fraction: float,
    original: Outcome,
    trials: Sequence[Trial],
    answers: Answers,
    outcomes: Sequence[Outcome | None],
) -> list[tuple[Value, ...]]:
    """Retraining, the checkpoint as it was, the edits, and what is retrained after selecting.

    Trials that were not retrained in time count nowhere, unless none was.
    """
    here = [i for i, trial in enumerate(trials) if trial.fraction == fraction]
    here = [i for i in here if outcomes[i]] or here
    truth = [outcomes[i] for i in here]

    def compared(each: Sequence[Outcome]) -> list[Comparison]:
        pairs = zip(each, truth, strict=True)
        return [Comparison.of(one, right, original) for one, right in pairs]

    rows = []
    if done := [one for one in truth if one]:
        rows.append(row(RETRAINED, compared(done)))
    rows.append(row(UNEDITED, compared([original] * len(here))))
    rows += [row(name, compared([each[i] for i in here])) for name, each in answers.edits.items()]
    for selection, outcome in zip(answers.selections, outcomes[len(trials) :], strict=True):
        if outcome and selection.fraction == fraction:
            other = replace(outcome, seconds=selection.seconds + outcome.seconds)
            each = [Comparison.of(other, right, original, same_data=False) for right in truth]
            rows.append(_once(row(f"{selection.name} selects, retrained", each)))
    return rows


def _once(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """A row of one outcome beside several: its accuracy has no spread of its own."""
    place = dict(zip(COLUMNS, values, strict=True))
    return tuple({**place, "accuracy error": None, "repeats": 1}.values())


def _figure(name: str, title: str, rows: Sequence[tuple[Value, ...]]) -> Figure:
    accuracy = {str(values[0]): float(values[1] or 0) for values in rows}
    error = {str(values[0]): float(values[2] or 0) for values in rows}
    levels = {RETRAINED: accuracy.pop(RETRAINED)} if RETRAINED in accuracy else {}
    bars = Series(
        "accuracy",
        tuple(accuracy),
        tuple(accuracy.values()),
        tuple(error[one] for one in accuracy),
    )
    return Figure(name, title, "method", "accuracy on the evaluation tasks", (bars,), levels)


def _notes(bench: Workbench, config: EditingConfig, answers: Answers) -> tuple[str, ...]:
    training = bench.config.training
    notes = [
        f"What goes is drawn at random, {config.repeats} times for every share; errors are over "
        "these draws. Retraining has the recipe and the seed of the checkpoint "
        f"(training.seed {training.seed}).",
        "Time of retraining: its steps alone, while others may run beside it. Time of an edit: "
        "total gradients of all training tasks, curvature and solve, with an empty cache; neither "
        "loads data nor evaluates.",
    ]
    if any("ascent" in name for name in answers.edits):
        notes.append(
            f"gradient-ascent: {ASCENT_STEPS} plain steps up the mean loss of what goes, at "
            f"training.lr {training.lr:g}."
        )
    if answers.selections:
        notes.append(
            "A method that selects removes as many items, those that it ranks most harmful, and "
            "retrains once; its time is that of scoring and retraining, and what goes is not what "
            "goes from the others."
        )
    if len(bench.weights) > 1:
        notes.append(f"Edits are of the last of {len(bench.weights)} checkpoints.")
    warned = [f"{name}: {line}" for name, lines in answers.warnings.items() for line in lines]
    return (*notes, *answers.left_out, *warned)
