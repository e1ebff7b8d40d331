"""Learners that were trained on bad data: what the benchmark of learned selection starts from.

Few-shot tasks of Omniglot, Tiny ImageNet or scikit-learn's digits, or MNIST or those digits as
labelled data sets for a classifier. Of a fifth the labels are wrong (``flips``), or the images
differ from those that the learner is for (``mismatch``): tasks blurred and noisy, or single digits
turned and blurred. Labelled data may have a fifth of each (``both``).
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, rotate
from sklearn.datasets import load_digits
from torch.func import grad, vmap

from metaaudit.bilevel import query_outcome
from metaaudit.config import Config
from metaaudit.demo import digit_tasks
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks
from metaaudit.loading import assemble
from metaaudit.models import Layout, Params
from metaaudit.problem import Problem
from metaaudit.training import TrainingState, flip_labels

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
FEW_SHOT: dict[str, dict[str, Any]] = {
    "omniglot": {
        "format": "omniglot",
        "root": DATA / "omniglot",
        "image": {"size": 14, "invert": True},
        "train": {"classes": 190},
        "eval": {},
    },
    "tiny-imagenet": {
        "format": "image-folder",
        "root": DATA / "tiny-imagenet",
        "image": {"size": 32, "mean": [0.48, 0.45, 0.40], "std": [0.28, 0.27, 0.28]},
        "train": {"split": "train"},
        "eval": {"split": "test"},
    },
}
SIZES = {"digits": (800, 200, 797), "mnist": (2000, 400, 3000)}
"""Instances to train with, to select by, and to test with."""
HELD_OUT = 60
"""Tasks to select by, and as many to test with."""
BATCH = 8
"""Instances of a batch of labelled data, of which a step takes several."""


@dataclass(frozen=True)
class Case:
    """A learner that was trained on bad data.

    Attributes:
        problem: With the bad data.
        params: Meta-parameters after training.
        bad: ``[n_instances]`` or ``[n_tasks]``: which they are.
        test: Tasks, or batches, that nothing else is of.
    """

    problem: Problem
    params: Params
    bad: np.ndarray
    test: TaskSet

    @property
    def of_tasks(self) -> bool:
        """Whether whole tasks are bad."""
        return len(self.bad) == len(self.problem.train)

    @property
    def labelled(self) -> bool:
        """Whether the data are no few-shot tasks."""
        return self.problem.train.labelled

    def weights(self, kept: np.ndarray) -> np.ndarray:
        """``[n_instances]`` of 0 and 1 from what is kept of the tasks or the instances."""
        each = self.problem.train.n_instances // len(kept)
        return np.repeat(kept.astype(float), each)


def digit_case(bad: str, seed: int, *, tasks: int, epochs: int, share: float) -> Case:
    """Tasks of turned digits of which some are bad."""
    clean, others = digit_tasks(
        n_train=tasks, n_eval=2 * HELD_OUT, ways=5, shots=5, queries=5, seed=seed
    )
    config = Config.model_validate(
        {
            "model": {"name": "mlp", "hidden": [64]},
            "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
            "checkpoint": Path("none.safetensors"),
            "tasks": {"format": "episodes", "train": Path("none"), "eval": Path("none")},
            "training": {
                "epochs": epochs,
                "batch": 10,
                "lr": 0.01,
                "weight_decay": 0.001,
                "seed": seed,
            },
            "compute": {"device": "cpu", "task_batch": 20},
        }
    )
    return _few_shot_case(config, clean, others, bad, share)


def few_shot_case(data: str, bad: str, seed: int, *, tasks: int, epochs: int, share: float) -> Case:
    """Tasks of which some are bad."""
    usual = FEW_SHOT[data]
    train = {"tasks": tasks, "seed": seed, **usual["train"]}
    evaluation = {"tasks": 2 * HELD_OUT, "seed": seed + 1000, **usual["eval"]}
    config = Config.model_validate(
        {
            "model": {
                "name": "conv4",
                "blocks": 3,
                "hidden": 16,
                "in_channels": 3 if data == "tiny-imagenet" else 1,
            },
            "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
            "checkpoint": Path("none.safetensors"),
            "tasks": {**usual, "train": train, "eval": evaluation},
            "training": {
                "epochs": epochs,
                "batch": 10,
                "lr": 0.005,
                "weight_decay": 0.003,
                "seed": seed,
            },
            "compute": {"device": "cpu", "task_batch": 20},
        }
    )
    return _few_shot_case(config, *load_tasks(config.tasks), bad, share)


def labelled_case(data: str, bad: str, seed: int, *, epochs: int, share: float) -> Case:
    """A labelled data set of which some instances are bad, in ``both`` ways a share of each."""
    rng = np.random.default_rng(seed)
    x, y = digits() if data == "digits" else mnist()
    order = rng.permutation(len(y))
    parts = np.split(order[: sum(SIZES[data])], np.cumsum(SIZES[data])[:-1])
    train_x, train_y = x[parts[0]], y[parts[0]].copy()
    count = round(share * len(train_y))
    chosen = rng.permutation(len(train_y))
    flipped = chosen[: count if bad in ("flips", "both") else 0]
    turned_ones = chosen[len(flipped) : len(flipped) + (count if bad != "flips" else 0)]
    train_y[flipped] = (train_y[flipped] + rng.integers(1, 10, len(flipped))) % 10
    train_x = train_x.copy()
    if len(turned_ones):
        train_x[turned_ones] = turned(train_x[turned_ones], rng)
    wrong = np.isin(np.arange(len(train_y)), [*flipped, *turned_ones])
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.npz" for name in ("train", "clean", "test")]
        np.savez(files[0], x=train_x, y=train_y)
        for file, rows in zip(files[1:], parts[1:], strict=True):
            np.savez(file, x=x[rows], y=y[rows])
        config = labelled_config(data, seed, epochs, files[0], files[1])
        train, clean = load_tasks(config.tasks)
        _, test = load_tasks(config.tasks.model_copy(update={"eval": files[2]}))
    rows = [row for task in train.tasks for row in task.query]
    first = [int(train.pool.ids[row].rpartition("/")[2]) for row in rows]
    return _trained_case(config, train, wrong[first], clean, test)


def labelled_config(data: str, seed: int, epochs: int, train: Path, clean: Path) -> Config:
    """Of a small classifier."""
    mlp: dict[str, Any] = {"name": "mlp", "hidden": [64], "ways": 10}
    conv4: dict[str, Any] = {"name": "conv4", "blocks": 3, "hidden": 16, "ways": 10, "norm": "none"}
    return Config.model_validate(
        {
            "model": mlp if data == "digits" else conv4,
            "learner": {"name": "none"},
            "checkpoint": Path("none.safetensors"),
            "tasks": {"format": "labelled", "train": train, "eval": clean, "batch": BATCH},
            "training": {
                "epochs": epochs,
                "batch": 64 // BATCH,
                "lr": 0.003,
                "weight_decay": 1e-4,
                "seed": seed,
            },
            "compute": {"device": "cpu", "task_batch": 50},
        }
    )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's, of 8 x 8."""
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 1, 8, 8) * 15.9).astype(np.uint8), labels.astype(np.int64)


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test images, of 28 x 28, every other pixel."""
    files = (DATA / "mnist" / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    pixels, labels = (
        np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8)[skip:]
        for file, skip in zip(files, (16, 8), strict=True)
    )
    means = pixels.reshape(-1, 1, 14, 2, 14, 2).mean(axis=(3, 5))
    return means.astype(np.uint8), labels.astype(np.int64)


def turned(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each turned by 40 to 90 degrees one way or the other, blurred and noisy."""
    angles = rng.uniform(40, 90, len(images)) * rng.choice([-1, 1], len(images))
    turns = [
        rotate(image.astype(np.float32), angle, axes=(1, 2), reshape=False, order=1)
        for image, angle in zip(images, angles, strict=True)
    ]
    soft = gaussian_filter(np.stack(turns), (0, 0, 0.6, 0.6))
    return (soft + rng.normal(0, 15, soft.shape)).clip(0, 255).astype(np.uint8)


def mismatched_tasks(task_set: TaskSet, share: float, seed: int) -> tuple[TaskSet, np.ndarray]:
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


def trained(problem: Problem, weights: np.ndarray, seed: int) -> Params:
    """Trains with a weight for every instance, 0 for those that are left out."""
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
                parts = [_mean_one(each[:, :n]), _mean_one(each[:, n:])]
                total += layout.flatten(slope(state.params, *parts, batch.data)).sum(0)
            rate = config.rate(epoch, config.epochs)
            step = layout.unflatten(total / len(some), state.params)
            state = state.step(step, rate, config.weight_decay)
    return state.params


def accuracy(case: Case, params: Params) -> float:
    """On the test tasks."""
    return float(query_outcome(case.problem.unrolled(params, case.test)).accuracies.mean())


def _few_shot_case(config: Config, clean: TaskSet, others: TaskSet, bad: str, share: float) -> Case:
    seed = config.training.seed
    if bad == "flips":
        planted = flip_labels(clean, share, seed=seed)
        changed, wrong = planted.task_set, planted.wrong
    else:
        changed, wrong = mismatched_tasks(clean, share, seed)
    held_out, test = others.select(range(HELD_OUT)), others.select(range(HELD_OUT, 2 * HELD_OUT))
    return _trained_case(config, changed, wrong, held_out, test)


def _trained_case(
    config: Config, train: TaskSet, bad: np.ndarray, held_out: TaskSet, test: TaskSet
) -> Case:
    problem = assemble(config, train, held_out)
    params = trained(problem, np.ones(train.n_instances), config.training.seed)
    return Case(problem, params, bad, test)


def _mean_one(weights: np.ndarray) -> torch.Tensor:
    """So that what is kept of a set has the weight of the whole."""
    if not weights.shape[1]:
        return torch.from_numpy(weights).float()
    scaled = weights / np.maximum(weights.mean(axis=1, keepdims=True), 1e-9)
    return torch.from_numpy(scaled).float()
