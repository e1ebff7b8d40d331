"""Predicted against actual losses of learners that were retrained on some of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from metaaudit.config.evaluate import LdsConfig
from metaaudit.fidelity.candidates import Scored, score_all
from metaaudit.fidelity.losses import Measured
from metaaudit.fidelity.removals import LEAST, Removals
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.statistics import (
    Bootstrap,
    Estimate,
    Floats,
    Resampled,
    constant_columns,
    lds,
    predicted_losses,
    seed_correlation,
)
from metaaudit.fidelity.workbench import Workbench
from metaaudit.problem import Problem

TITLES = {
    "subset": "Predicted against actual losses after retraining on subsets of the tasks",
    "task": "Predicted against actual losses after retraining without one task",
    "instance": "Predicted against actual mean loss after retraining without one instance",
}


def check(problem: Problem, config: LdsConfig) -> None:
    """Refuses too few retrainings.

    Raises:
        TaskSetError: There are too few to compare.
    """
    Removals.of(problem.train, config)


def run(bench: Workbench, config: LdsConfig) -> Result:
    """Scores by every candidate, retrains, and compares."""
    removals = Removals.of(bench.problem.train, config)
    scored, left_out = score_all(bench, config.candidates, by_instance=config.remove == "instance")
    measured = Measured.by(bench, config, removals)
    outcome = Outcome(bench.problem.evaluation.task_ids, config, removals, scored, measured)
    return outcome.result(left_out)


@dataclass(frozen=True)
class Outcome:
    """Everything that the tables are made of.

    Attributes:
        target_ids: Of the evaluation tasks.
        config: The experiment.
        removals: What each retraining lacks.
        scored: By the candidates.
        measured: By retraining.
    """

    target_ids: list[str]
    config: LdsConfig
    removals: Removals
    scored: list[Scored]
    measured: Measured

    def result(self, left_out: Sequence[str]) -> Result:
        """Tables, a figure and notes."""
        done, asked = int(self.measured.done.sum()), len(self.measured.done)
        enough = done >= LEAST
        ceiling = self._ceiling.estimate if enough and self._ceiling else None
        return Result(
            kind="lds",
            title=TITLES[self.config.remove],
            tables=(
                *((self._scores(), self._targets()) if enough else ()),
                self._retrainings(),
            ),
            figures=(self._figure(),) if enough else (),
            notes=(*left_out, *self._notes(done, asked, ceiling)),
            complete=self.measured.complete,
            details={
                "retrainings": {"done": done, "asked": asked, "seeds": self.config.seeds},
                "ceiling": {"value": ceiling.value, "error": ceiling.error} if ceiling else None,
                "warnings": {
                    one.candidate.name: list(one.scores.warnings)
                    for one in self.scored
                    if one.scores.warnings
                },
            },
        )

    @cached_property
    def _losses(self) -> Floats:
        """``[n_done, n_seeds, n_targets]``; one target where instances are scored on the mean."""
        losses = self.measured.losses
        return losses.mean(axis=2, keepdims=True) if self.config.remove == "instance" else losses

    @cached_property
    def _actual(self) -> Floats:
        mean: Floats = self._losses.mean(axis=1)
        return mean

    @cached_property
    def _bootstrap(self) -> Bootstrap:
        done, _, targets = self._losses.shape
        return Bootstrap.of((done, targets), self.config.resamples, self.config.seed)

    @cached_property
    def _ceiling(self) -> Resampled | None:
        return self._bootstrap.ceiling(self._losses)

    @cached_property
    def _predicted(self) -> list[Floats]:
        """``[n_done, n_targets]`` of every candidate."""
        kept, shape = self.removals.kept[self.measured.done], self._actual.shape
        found = []
        for one in self.scored:
            by_instance = self.config.remove == "instance"
            influence = (
                one.scores.instance_influence[:, None] if by_instance else one.scores.task_influence
            )
            found.append(np.broadcast_to(predicted_losses(influence, kept), shape))
        return found

    @cached_property
    def _resampled(self) -> list[Resampled]:
        return self._bootstrap.scores(self._predicted, self._actual)

    @cached_property
    def _order(self) -> list[int]:
        """Candidates, best first."""
        return sorted(range(len(self.scored)), key=lambda i: -self._resampled[i].value)

    def _scores(self) -> Table:
        best = self._resampled[self._order[0]]
        rows: list[tuple[Value, ...]] = []
        for i in self._order:
            one = self._resampled[i]
            share = one.over(self._ceiling) if self._ceiling else None
            behind = best.minus(one).estimate
            rows.append(
                (
                    self.scored[i].candidate.name,
                    one.value,
                    one.estimate.error,
                    *one.estimate.interval,
                    *((share.value, share.estimate.error) if share else (None, None)),
                    behind.value,
                    behind.error,
                    behind.value > 2 * behind.error,
                    self.scored[i].seconds,
                )
            )
        columns = ("candidate", "LDS", "error", "95% from", "95% to")
        shares = ("share of ceiling", "its error")
        behind_best = ("behind the best", "error of that", "beyond 2 errors")
        title = "Linear datamodeling score, mean over evaluation tasks"
        return Table("lds", title, (*columns, *shares, *behind_best, "scoring (s)"), rows)

    def _targets(self) -> Table:
        several = self.config.seeds > 1
        alike = seed_correlation(self._losses).tolist() if several else None
        scores = [lds(self._predicted[i], self._actual) for i in self._order]
        by_instance = self.config.remove == "instance"
        names = ["mean"] if by_instance else self.target_ids
        rows: list[tuple[Value, ...]] = [
            (
                name,
                float(self._actual[:, t].mean()),
                float(self._actual[:, t].std()),
                alike[t] if alike else None,
                *(float(score[t]) for score in scores),
            )
            for t, name in enumerate(names)
        ]
        candidates = (self.scored[i].candidate.name for i in self._order)
        columns = ("evaluation task", "mean loss", "spread over retrainings", "seed to seed")
        return Table("lds-targets", "LDS of every evaluation task", (*columns, *candidates), rows)

    def _retrainings(self) -> Table:
        measured, config = self.measured, self.config
        rows: list[tuple[Value, ...]] = []
        for group, removal in enumerate(np.flatnonzero(measured.done)):
            tasks, losses = self.removals.task_sets[removal], measured.losses[group]
            for number in range(config.seeds):
                rows.append(
                    (
                        self.removals.names[removal],
                        len(tasks),
                        config.seed + number,
                        float(losses[number].mean()),
                        float(measured.accuracies[group, number].mean()),
                        *self._change(losses[number], number),
                        float(measured.seconds[group, number]),
                    )
                )
        single = config.remove != "subset"
        columns = ("without" if single else "subset", "tasks", "seed", "mean loss", "mean accuracy")
        return Table(
            "lds-retrainings",
            "What was retrained, and how it did on the evaluation tasks",
            (*columns, *(("change of mean loss",) if single else ()), "training (s)"),
            rows,
        )

    def _change(self, losses: Floats, number: int) -> tuple[float | None, ...]:
        """From training on everything with the same seed, where something single is left out."""
        if self.config.remove == "subset":
            return ()
        reference = self.measured.reference
        return (None if reference is None else float((losses - reference[number]).mean()),)

    def _figure(self) -> Figure:
        shown = [self._resampled[i].estimate for i in self._order]
        bars = Series(
            "LDS",
            tuple(self.scored[i].candidate.name for i in self._order),
            tuple(one.value for one in shown),
            tuple(one.error for one in shown),
        )
        levels = {"noise ceiling": self._ceiling.value} if self._ceiling else {}
        return Figure("lds", TITLES[self.config.remove], "", "LDS (Spearman)", (bars,), levels)

    def _notes(self, done: int, asked: int, ceiling: Estimate | None) -> list[str]:
        seeds = self.config.seeds
        if done < LEAST:
            return [f"{done} of {asked} retrainings were done in the time: too few to compare"]
        notes = [
            f"{done} of {asked} retrainings, {seeds} {'seeds' if seeds > 1 else 'seed'} each, "
            f"{self._actual.shape[1]} targets; errors by a bootstrap over retrainings and targets."
        ]
        if ceiling:
            notes.append(
                f"Noise ceiling {ceiling.value:.3f} (standard error {ceiling.error:.3f}): what a "
                "perfect predictor of the expected loss would reach."
            )
        else:
            notes.append("One seed: the noise ceiling, and the share of it, are not known.")
        if still := constant_columns(self._actual):
            notes.append(f"{still} targets have the same loss after every retraining: LDS 0.")
        for one, predicted in zip(self.scored, self._predicted, strict=True):
            if still := constant_columns(predicted):
                notes.append(f"{one.candidate.name} predicts one loss for {still} targets: LDS 0.")
        if self.config.remove == "instance":
            notes.append(
                "A retraining without an instance takes the mean over those that are left; an "
                "influence is of its weight alone, with the number of instances as it was."
            )
        return notes
