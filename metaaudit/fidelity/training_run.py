"""One retraining as a function of plain data, so that any process can do it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import torch

from metaaudit.bilevel import query_outcome
from metaaudit.cache import Arrays
from metaaudit.config import Config
from metaaudit.config.training import TrainingConfig
from metaaudit.errors import IncompleteError
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.loading import assemble
from metaaudit.models import Params
from metaaudit.training import MetaTrainer, TrainingState

COMPUTING = (
    "bilevel/adaptation.py",
    "bilevel/batch.py",
    "bilevel/field.py",
    "bilevel/implicit.py",
    "bilevel/inner/*.py",
    "bilevel/inner_method.py",
    "bilevel/objective.py",
    "bilevel/query_outcome.py",
    "bilevel/total_gradient.py",
    "bilevel/unrolled.py",
    "fidelity/training_run.py",
    "inputs/task_set.py",
    "learners/*.py",
    "linalg/*.py",
    "loading.py",
    "models/*.py",
    "problem.py",
    "training/meta_trainer.py",
    "training/state.py",
)
"""The source that a retraining depends on; it costs too much to be redone for any other change."""


@dataclass(frozen=True)
class Work:
    """What sets one retraining apart from others.

    Attributes:
        tasks: What it trains on.
        pool: The images that they refer to, where that is not the common pool.
        training: The recipe, with its seed and epochs.
        start: Meta-parameters to start from, by name; absent: initial ones.
    """

    tasks: tuple[Task, ...]
    pool: ImagePool | None
    training: TrainingConfig
    start: Arrays | None


@dataclass(frozen=True)
class TrainingRun:
    """What all retrainings have in common.

    Attributes:
        config: The configuration, except for its ``training`` section.
        pool: Images of the training tasks.
        evaluation: Evaluation tasks.
    """

    config: Config
    pool: ImagePool
    evaluation: TaskSet

    def arrays(self, work: Work) -> Arrays:
        """Trains and evaluates: ``losses``, ``accuracies``, ``seconds`` and the parameters.

        Raises:
            IncompleteError: A loss is not finite.
        """
        config = self.config.model_copy(update={"training": work.training})
        tasks = TaskSet(work.pool or self.pool, work.tasks)
        problem = assemble(config, tasks, self.evaluation)
        start = problem.template
        if work.start is not None:
            start = {name: torch.from_numpy(work.start[name]).to(p) for name, p in start.items()}
        trainer = MetaTrainer(problem.as_trained, tasks, work.training)
        started = time.perf_counter()
        params = trainer.run(TrainingState.initial(start), lambda _: None).params
        seconds = np.array(time.perf_counter() - started)
        outcome = query_outcome(problem.as_evaluated(params, self.evaluation))
        if not np.isfinite(outcome.losses).all():
            raise IncompleteError(
                "evaluate", "the loss of an evaluation task is not finite", "finite numbers"
            )
        arrays = {array_name(name): p.cpu().numpy() for name, p in params.items()}
        return {**arrays, **vars(outcome), "seconds": seconds}


def array_name(parameter: str) -> str:
    """What a parameter is called among the arrays; HDF5 takes a slash for a folder."""
    return f"params.{quote(parameter, safe='')}"


def params_of(arrays: Arrays, like: Params) -> Params:
    """The parameters among the arrays, in the order, precision and place of others."""
    return {name: torch.from_numpy(arrays[array_name(name)]).to(p) for name, p in like.items()}
