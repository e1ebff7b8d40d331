"""Whether learned selection finds wrong labels, and what leaving them out is worth.

Trains a learner on Omniglot tasks with planted wrong labels, scores every instance by each
strategy, leaves out as many as were planted, trains again without them, and measures accuracy on
other tasks. Prints one JSON object a seed and strategy::

    python tests/benchmarks/learned_selection.py --seeds 0 1 2
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
from metaaudit.training import Planted, TrainingState, flip_labels

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
MTS: dict[str, dict[str, Any]] = {
    "mts, embedding, batch 8": {"features": ["embedding"], "batch": 8},
    "mts, embedding, batch 64": {"features": ["embedding"], "batch": 64},
    "mts, features, batch 8": {"batch": 8},
    "mts, features, batch 64": {"batch": 64},
}


@dataclass(frozen=True)
class Case:
    """A learner that was trained on wrong labels.

    Attributes:
        problem: With the wrong labels.
        params: Meta-parameters after training.
        planted: Where the labels are wrong.
        test: Tasks of classes that nothing else is of.
    """

    problem: Problem
    params: Params
    planted: Planted
    test: TaskSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--flips", type=float, default=0.2)
    args = parser.parse_args()
    for seed in args.seeds:
        case = case_of(args, seed)
        count = int(case.planted.wrong.sum())
        everything = np.ones(case.problem.train.n_instances)
        told(seed, "no selection", accuracy(case, case.params))
        clean = trained(case.problem, (~case.planted.wrong).astype(float), seed)
        told(seed, "the right ones", accuracy(case, clean))
        for name, score in strategies().items():
            started = time.perf_counter()
            values = score(case)
            seconds = time.perf_counter() - started
            dropped = np.argsort(-values, kind="stable")[:count]
            kept = everything.copy()
            kept[dropped] = 0
            found = accuracy(case, trained(case.problem, kept, seed))
            told(
                seed,
                name,
                found,
                auroc=float(roc_auc_score(case.planted.wrong, values)),
                wrong_among_dropped=float(case.planted.wrong[dropped].mean()),
                seconds=seconds,
            )


def told(seed: int, name: str, found: float, **more: float) -> None:
    values = {key: round(value, 4) for key, value in {"accuracy": found, **more}.items()}
    print(json.dumps({"seed": seed, "strategy": name, **values}), flush=True)


def case_of(args: argparse.Namespace, seed: int) -> Case:
    config = Config.model_validate(
        {
            "model": {
                "name": "conv4",
                "blocks": 3,
                "hidden": 16,
                "norm": "none",
                "activation": "softplus",
                "features": "flatten",
                "gain": 3.0,
            },
            "learner": {"name": "maml", "inner_lr": 0.2, "steps": 3},
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
    planted = flip_labels(train, args.flips, seed=seed)
    held_out, test = others.select(list(range(60))), others.select(list(range(60, 120)))
    problem = assemble(config, planted.task_set, held_out)
    params = trained(problem, np.ones(train.n_instances), seed)
    return Case(problem, params, planted, test)


def strategies() -> dict[str, Callable[[Case], np.ndarray]]:
    return {
        "random": lambda case: by(case, "random"),
        "loss": lambda case: by(case, "loss"),
        "cross-fitted": cross_fitted,
        "influence": lambda case: by(case, "task-if"),
        **{name: lambda case, s=settings: by(case, "mts", s) for name, settings in MTS.items()},
    }


def by(case: Case, method: str, settings: dict[str, Any] | None = None) -> np.ndarray:
    """Scores of instances by a method of influence."""
    influence = {"method": method, "mts": settings or {}} if settings else {"method": method}
    with TemporaryDirectory() as folder:
        return METHODS[method](Given.of(stages_of(case, folder, influence))).instance_influence


def cross_fitted(case: Case) -> np.ndarray:
    """Cross-entropy of the given labels, out of fold."""
    with TemporaryDirectory() as folder:
        stages = stages_of(case, folder, {"method": "loss"})
        log_p = LabelStages(stages).cross_fit(case.problem.train)
    labels = np.concatenate([task.pooled_labels for task in case.problem.train.tasks])
    return -log_p[np.arange(len(labels)), labels]


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
            rate = config.lr * 0.5 * (1 + np.cos(np.pi * epoch / config.epochs))
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
