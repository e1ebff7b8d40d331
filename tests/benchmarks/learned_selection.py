"""Whether learned selection finds bad data, and what leaving them out is worth.

Trains a learner on Omniglot tasks some of whose labels are wrong (``flips``) or of which some are
drawn with a blurred pen on noisy paper (``mismatch``), scores every instance or task by each
strategy, leaves out as many as were planted, trains again without them, and measures accuracy on
other tasks. Prints one JSON object a seed and strategy::

    python tests/benchmarks/learned_selection.py --bad flips --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from torch.func import grad, vmap

from metaaudit.bilevel import query_outcome
from metaaudit.cache import FactorCache
from metaaudit.config import Config
from metaaudit.console import silent
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks
from metaaudit.label_stages import LabelStages
from metaaudit.loading import Weights, assemble
from metaaudit.methods import METHODS, Given
from metaaudit.models import Layout, Params
from metaaudit.problem import Problem
from metaaudit.stages import Stages
from metaaudit.training import TrainingState, flip_labels

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
MTS: dict[str, dict[str, Any]] = {
    "mts, embedding, batch 8": {"features": ["embedding"], "batch": 8},
    "mts, embedding, batch 64": {"features": ["embedding"], "batch": 64},
    "mts, features, batch 8": {"batch": 8},
    "mts, features, batch 64": {"batch": 64},
}


@dataclass(frozen=True)
class Case:
    """A learner that was trained on bad data.

    Attributes:
        problem: With the bad data.
        params: Meta-parameters after training.
        bad: ``[n_instances]`` or ``[n_tasks]``: which they are.
        test: Tasks of classes that nothing else is of.
    """

    problem: Problem
    params: Params
    bad: np.ndarray
    test: TaskSet

    @property
    def of_tasks(self) -> bool:
        """Whether whole tasks are bad."""
        return len(self.bad) == len(self.problem.train)

    def weights(self, kept: np.ndarray) -> np.ndarray:
        """``[n_instances]`` of 0 and 1 from what is kept of the tasks or the instances."""
        each = self.problem.train.n_instances // len(kept)
        return np.repeat(kept.astype(float), each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--bad", choices=["flips", "mismatch"], default="flips")
    parser.add_argument("--share", type=float, default=0.2)
    args = parser.parse_args()
    for seed in args.seeds:
        case = case_of(args, seed)
        count = int(case.bad.sum())
        told(seed, "no selection", accuracy(case, case.params))
        clean = trained(case.problem, case.weights(~case.bad), seed)
        told(seed, "the good ones", accuracy(case, clean))
        for name, score in strategies().items():
            started = time.perf_counter()
            values = score(case)
            seconds = time.perf_counter() - started
            dropped = np.argsort(-values, kind="stable")[:count]
            kept = np.ones(len(values), dtype=bool)
            kept[dropped] = False
            told(
                seed,
                name,
                accuracy(case, trained(case.problem, case.weights(kept), seed)),
                auroc=float(roc_auc_score(case.bad, values)),
                bad_among_dropped=float(case.bad[dropped].mean()),
                seconds=seconds,
            )


def told(seed: int, name: str, found: float, **more: float) -> None:
    values = {key: round(value, 4) for key, value in {"accuracy": found, **more}.items()}
    print(json.dumps({"seed": seed, "strategy": name, **values}), flush=True)


def case_of(args: argparse.Namespace, seed: int) -> Case:
    config = Config.model_validate(
        {
            "model": {"name": "conv4", "blocks": 3, "hidden": 16},
            "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
            "checkpoint": Path("none.safetensors"),
            "tasks": {
                "format": "omniglot",
                "root": DATA / "omniglot",
                "image": {"size": 14, "invert": True},
                "train": {"tasks": args.tasks, "classes": 190, "seed": seed},
                "eval": {"tasks": 120, "seed": seed + 1000},
            },
            "training": {
                "epochs": args.epochs,
                "batch": 10,
                "lr": 0.005,
                "weight_decay": 0.003,
                "seed": seed,
            },
            "compute": {"device": "cpu", "task_batch": 20},
        }
    )
    train, others = load_tasks(config.tasks)
    if args.bad == "flips":
        planted = flip_labels(train, args.share, seed=seed)
        changed, bad = planted.task_set, planted.wrong
    else:
        changed, bad = mismatched(train, args.share, seed)
    held_out, test = others.select(list(range(60))), others.select(list(range(60, 120)))
    problem = assemble(config, changed, held_out)
    params = trained(problem, np.ones(train.n_instances), seed)
    return Case(problem, params, bad, test)


def mismatched(task_set: TaskSet, share: float, seed: int) -> tuple[TaskSet, np.ndarray]:
    """Some tasks with every image blurred and noisy, and which they are."""
    rng, pool, count = np.random.default_rng(seed), task_set.pool, len(task_set)
    bad = np.zeros(count, dtype=bool)
    bad[rng.permutation(count)[: round(share * count)]] = True
    soft = gaussian_filter(pool.pixels.astype(np.float32), (0, 0, 1.2, 1.2))
    noisy = (soft + rng.normal(0, 40, soft.shape)).clip(0, 255).astype(np.uint8)
    n = len(pool.pixels)
    both = replace(
        pool,
        pixels=np.concatenate([pool.pixels, noisy]),
        ids=(*pool.ids, *(f"{name}~" for name in pool.ids)),
    )
    tasks = tuple(
        replace(task, support=task.support + n, query=task.query + n) if there else task
        for task, there in zip(task_set.tasks, bad, strict=True)
    )
    return TaskSet(both, tasks), bad


def strategies() -> dict[str, Callable[[Case], np.ndarray]]:
    return {
        "random": lambda case: by(case, "random"),
        "loss": lambda case: by(case, "loss"),
        "cross-fitted": cross_fitted,
        "influence": lambda case: by(case, "task-if"),
        **{name: lambda case, s=settings: by(case, "mts", s) for name, settings in MTS.items()},
    }


def by(case: Case, method: str, settings: dict[str, Any] | None = None) -> np.ndarray:
    """Scores by a method of influence."""
    influence = {"method": method, "mts": settings or {}} if settings else {"method": method}
    with TemporaryDirectory() as folder:
        given = Given.of(stages_of(case, folder, influence), by_instance=not case.of_tasks)
        found = METHODS[method](given)
    return found.task_influence.mean(axis=1) if case.of_tasks else found.instance_influence


def cross_fitted(case: Case) -> np.ndarray:
    """Cross-entropy of the given labels, out of fold; of a task, the mean."""
    with TemporaryDirectory() as folder:
        stages = stages_of(case, folder, {"method": "loss"})
        log_p = LabelStages(stages).cross_fit(case.problem.train)
    labels = np.concatenate([task.pooled_labels for task in case.problem.train.tasks])
    losses = -log_p[np.arange(len(labels)), labels]
    return losses.reshape(len(case.bad), -1).mean(axis=1)


def stages_of(case: Case, folder: str, influence: dict[str, Any]) -> Stages:
    changed = case.problem.config.model_dump() | {"influence": influence}
    problem = replace(case.problem, config=Config.model_validate(changed))
    weights = Weights(Path("none"), case.params, "", (), {}, ())
    return Stages(problem, weights, FactorCache(Path(folder)), silent(), problem.influence_layers())


def trained(problem: Problem, weights: np.ndarray, seed: int) -> Params:
    """Meta-trains with a weight for every instance, 0 for those that are left out."""
    config, state = problem.config.training, TrainingState.initial(problem.template)
    layout = Layout.of(state.params)
    slope = vmap(grad(problem.objective.task_loss), in_dims=(None, 0, 0, 0))
    for epoch in range(config.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(problem.train))
        for at in range(0, len(order), config.batch):
            some = problem.train.select(order[at : at + config.batch].tolist())
            total = torch.zeros(layout.size)
            for batch in problem.batching.batches(some):
                rows = order[at : at + config.batch][batch.rows]
                n, size = batch.data.support_y.shape[1], batch.instances.shape[1]
                each = weights.reshape(-1, size)[rows]
                parts = [mean_one(each[:, :n]), mean_one(each[:, n:])]
                total += layout.flatten(slope(state.params, *parts, batch.data)).sum(0)
            rate = config.rate(epoch, config.epochs)
            step = layout.unflatten(total / len(some), state.params)
            state = state.step(step, rate, config.weight_decay)
    return state.params


def mean_one(weights: np.ndarray) -> torch.Tensor:
    """So that what is kept of a set has the weight of the whole."""
    scaled = weights / np.maximum(weights.mean(axis=1, keepdims=True), 1e-9)
    return torch.from_numpy(scaled).float()


def accuracy(case: Case, params: Params) -> float:
    return float(query_outcome(case.problem.unrolled(params, case.test)).accuracies.mean())


if __name__ == "__main__":
    main()
