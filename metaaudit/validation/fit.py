"""Whether the learner's settings fit the checkpoint, which no checkpoint file says.

A checkpoint that was meta-trained gets better by adaptation, and best near the inner learning rate
that it was trained with. Wrong settings, a wrong polarity of the images or a wrong order of the
layers show as accuracy at chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import vmap

from metaaudit.bilevel import Objective, TaskTensors, unit_weights
from metaaudit.learners import ANIL, IMAML, MAML, Learner
from metaaudit.models import Params
from metaaudit.problem import Problem

MOST_TASKS = 50
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Multiples of the inner learning rate that are tried."""

ERRORS = 3.0
"""Standard errors by which accuracies have to differ."""


@dataclass(frozen=True)
class Fit:
    """Query accuracy on evaluation tasks.

    Attributes:
        n_tasks: Number of tasks.
        n_instances: Number of their query instances.
        chance: Accuracy of guessing.
        adapted: Accuracy after adaptation.
        unadapted: Accuracy of the meta-parameters themselves; ``None`` where they are no network,
            or the learner does not adapt.
        by_rate: Accuracy by inner learning rate; empty where the learner has no single one.
        rate: The configured one.
        adapts: Whether the learner adapts.
    """

    n_tasks: int
    n_instances: int
    chance: float
    adapted: float
    unadapted: float | None
    by_rate: dict[float, float]
    rate: float | None
    adapts: bool = True

    @property
    def error(self) -> float:
        """Standard error of a difference of accuracies, at most."""
        return math.sqrt(0.5 / self.n_instances)


def measure(problem: Problem, params: Params) -> Fit:
    """Adapts to evaluation tasks, as configured and with other inner learning rates."""
    learner = problem.objective.learner
    rows = list(range(min(MOST_TASKS, len(problem.evaluation))))
    tasks = problem.evaluation.select(rows)
    guesses = [len(task.query) / task.ways for task in tasks.tasks]
    n_instances = int(tasks.query_sizes.sum())
    some = replace(problem, evaluation=tasks)
    adapts = problem.config.adapts
    whole = adapts and set(params) >= set(problem.model.initial())
    rate = learner.inner_lr if isinstance(learner, MAML | ANIL | IMAML) else None
    by_rate = {} if rate is None else _by_rate(some, params, learner, rate)
    adapted = _accuracy(some, params, learner) if rate is None else by_rate[rate]
    return Fit(
        n_tasks=len(rows),
        n_instances=n_instances,
        chance=sum(guesses) / n_instances,
        adapted=adapted,
        unadapted=_accuracy(some, params, None) if whole else None,
        by_rate=by_rate,
        rate=rate,
        adapts=adapts,
    )


def fit_lines(fit: Fit) -> list[str]:
    """What was measured."""
    if not fit.adapts:
        return [
            f"fit: accuracy {fit.adapted:.3f} on {fit.n_instances} evaluation instances, "
            f"chance {fit.chance:.3f}"
        ]
    before = "" if fit.unadapted is None else f", {fit.unadapted:.3f} without adaptation"
    lines = [
        f"fit: accuracy {fit.adapted:.3f} after adaptation to {fit.n_tasks} evaluation tasks"
        f"{before}, chance {fit.chance:.3f}"
    ]
    if fit.by_rate:
        tried = ", ".join(f"{rate:g}: {accuracy:.3f}" for rate, accuracy in fit.by_rate.items())
        lines.append(f"fit by inner learning rate: {tried}")
    return lines


def fit_warnings(fit: Fit) -> list[str]:
    """What suggests that the configuration does not fit the checkpoint."""
    clearly = ERRORS * fit.error
    if fit.adapted < fit.chance + clearly:
        if not fit.adapts:
            return [
                "accuracy is at chance: check that model and data are those of the checkpoint "
                "(order of the classes, image size, polarity by image.invert, statistics)"
            ]
        return [
            "accuracy after adaptation is at chance: check that learner, model and tasks are those "
            "of the checkpoint (inner_lr, steps, image size, polarity by image.invert, statistics)"
        ]
    found = []
    if fit.unadapted is not None and fit.adapted < fit.unadapted + clearly:
        found.append(
            "adaptation does not help: check learner.inner_lr and learner.steps, and that the "
            "evaluation tasks are few-shot tasks of new classes"
        )
    best = max(fit.by_rate, key=lambda rate: fit.by_rate[rate], default=None)
    if best is not None and fit.by_rate[best] > fit.adapted + clearly:
        found.append(
            f"an inner_lr of {best:g} fits better ({fit.by_rate[best]:.3f} against "
            f"{fit.adapted:.3f}): was the checkpoint trained with {fit.rate:g}?"
        )
    return found


def _by_rate(problem: Problem, params: Params, learner: Learner, rate: float) -> dict[float, float]:
    return {
        one: _accuracy(problem, params, replace(learner, inner_lr=one))  # type: ignore[type-var]
        for one in (factor * rate for factor in FACTORS)
    }


def _accuracy(problem: Problem, params: Params, learner: Learner | None) -> float:
    """Query accuracy after adaptation by ``learner``, or of the network itself."""
    objective = problem.objective
    if learner is not None:
        objective = Objective(objective.forward, learner, objective.loss)

    def hits(w: Tensor, data: TaskTensors) -> Tensor:
        theta = params if learner is None else objective.adapt(params, w, data)
        return objective.forward(theta, data.query_x).argmax(-1) == data.query_y

    total = 0
    with torch.no_grad():
        for batch in problem.batching.batches(problem.evaluation):
            total += int(vmap(hits)(unit_weights(batch.data)[0], batch.data).sum())
    return total / int(problem.evaluation.query_sizes.sum())
