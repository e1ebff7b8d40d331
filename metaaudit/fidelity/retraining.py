"""Training anew on other tasks, which tells what really happens without some of the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from metaaudit.bilevel import query_outcome
from metaaudit.cache import Arrays, FactorCache
from metaaudit.config.model import FactoryConfig
from metaaudit.console import Messages
from metaaudit.curvature import code_hash, weights_hash
from metaaudit.fidelity.budget import Budget
from metaaudit.fidelity.schedule import CachedRun, Job, Schedule
from metaaudit.fidelity.training_run import COMPUTING, TrainingRun, Work, params_of
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params
from metaaudit.problem import Problem
from metaaudit.training import check_trainable

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Retraining:
    """One training run with the recipe of the configuration.

    Attributes:
        tasks: What it trains on.
        seed: ``training.seed`` of its initial weights and its order of tasks.
        start: Meta-parameters to start from; absent: initial ones.
        epochs: Passes over its own tasks; absent: those of the recipe. The schedule of the
            learning rate spans them.
    """

    tasks: TaskSet
    seed: int
    start: Params | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Performance:
    """How meta-parameters do on the evaluation tasks.

    Attributes:
        losses: ``[n_eval]`` mean query loss after adaptation to each.
        accuracies: ``[n_eval]`` share of right query predictions.
    """

    losses: Floats
    accuracies: Floats


@dataclass(frozen=True)
class Retrained:
    """What a training run came to.

    Attributes:
        performance: On the evaluation tasks.
        seconds: Time that it took, when it was not taken from the cache.
        params: Final meta-parameters.
    """

    performance: Performance
    seconds: float
    params: Params


def performance(problem: Problem, params: Params) -> Performance:
    """Losses and accuracies of meta-parameters on the evaluation tasks of a problem."""
    found = query_outcome(problem.as_evaluated(params, problem.evaluation))
    return Performance(found.losses, found.accuracies)


@dataclass(frozen=True)
class Retrainer:
    """Runs retrainings in several processes, each kept in the cache as soon as it is done.

    Under ``torchrun`` its processes divide them up, one at a time each, and exchange what they find
    through the cache, whose folder they share.

    Attributes:
        problem: The recipe, the evaluation tasks, and the pool of most tasks.
        cache: Where they are kept.
        messages: Told of progress.
        jobs: Processes that work at once; 1: this one.
        deadline: Time on the clock of ``time.monotonic`` by which all are to end; absent: none.
    """

    problem: Problem
    cache: FactorCache
    messages: Messages
    jobs: int = 1
    deadline: float | None = None

    def run(self, requests: Sequence[Retraining]) -> list[Retrained | None]:
        """What each came to, in order; ``None`` for those that the time budget left out.

        Raises:
            ConfigError: The model is one that cannot be trained.
            IncompleteError: A loss is not finite, or a process died.
            KeyboardInterrupt: What was done by then is in the cache.
        """
        check_trainable(self.problem.config.model)
        jobs: dict[str, Job] = {}
        places = []
        for number, request in enumerate(requests, start=1):
            key = self.key(request)
            places.append(json.dumps(key, sort_keys=True))
            name = f"retraining {number} of {len(requests)} (training.seed {request.seed})"
            jobs.setdefault(places[-1], Job(key, self._work(request), name))
        schedule = Schedule(
            list(jobs.values()), self._cached(), Budget(self.deadline), self.messages
        )
        try:
            each = dict(zip(jobs, schedule.run(self.jobs), strict=True))
        finally:
            self.cache.warnings += schedule.warnings
        return [None if (arrays := each[key]) is None else self._result(arrays) for key in places]

    def key(self, request: Retraining) -> dict[str, Any]:
        """All that a retraining depends on."""
        config, start = self.problem.config, request.start
        return {
            "code": code_hash(COMPUTING),
            "torch": torch.__version__,
            "device": self.problem.batching.device.type,
            "dtype": config.compute.dtype,
            "model": [config.model.model_dump(mode="json"), self.problem.model.source],
            # What one's own model starts from may come from a file.
            "initial": weights_hash(self.problem.template)
            if isinstance(config.model, FactoryConfig)
            else None,
            "learner": config.learner.model_dump(mode="json"),
            "training": self._work(request).training.model_dump(mode="json"),
            "tasks": request.tasks.content_hash,
            "evaluation": self.problem.evaluation.content_hash,
            "start": None if start is None else weights_hash(start),
        }

    def _work(self, request: Retraining) -> Work:
        recipe = self.problem.config.training
        epochs = request.epochs or recipe.epochs
        update = {"seed": request.seed, "epochs": epochs, "snapshots": None}  # none are kept
        tasks, start = request.tasks, request.start
        return Work(
            tasks.tasks,
            None if tasks.pool is self.problem.train.pool else tasks.pool,
            recipe.model_copy(update=update),
            None if start is None else {name: p.cpu().numpy() for name, p in start.items()},
        )

    def _result(self, arrays: Arrays) -> Retrained:
        return Retrained(
            Performance(arrays["losses"], arrays["accuracies"]),
            float(arrays["seconds"]),
            params_of(arrays, self.problem.template),
        )

    def _cached(self) -> CachedRun:
        problem = self.problem
        run = TrainingRun(problem.config, problem.train.pool, problem.evaluation)
        return CachedRun(run, self.cache.folder, self.cache.limit)
