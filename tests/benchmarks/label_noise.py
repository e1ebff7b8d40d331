"""Signals of wrong labels and whole noisy tasks, against planted noise.

For each kind of noise a learner is meta-trained on the noisy tasks, and its checkpoints after a few
epochs and after the last one are scored. Prints one JSON object a checkpoint::

    python tests/benchmarks/label_noise.py --dataset digits --noise flips-10 permuted --out DIR

Checkpoints and what they say of the labels are kept in ``DIR`` and used again. ``--seed`` is that
of tasks, noise and training.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from metaaudit.bilevel import total_gradients
from metaaudit.config import Config
from metaaudit.config.mislabel import MislabelConfig, Signal
from metaaudit.demo import digit_tasks
from metaaudit.influence import self_influence, upper_outliers
from metaaudit.inputs.checkpoints import write_checkpoint
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks
from metaaudit.labelnoise import (
    Evidence,
    adapted_fit,
    cross_fit,
    detect,
    judge,
    leave_one_out_fit,
    own_influence,
    support_fit,
)
from metaaudit.labelnoise.detection import signal_values
from metaaudit.loading import load_weights, prepare
from metaaudit.models import Params
from metaaudit.problem import Problem
from metaaudit.training import MetaTrainer, Planted, TrainingState, flip_labels, plant

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
TASKS: dict[str, dict[str, Any]] = {
    "omniglot": {
        "format": "omniglot",
        "root": DATA / "omniglot",
        "train": {"tasks": 200, "classes": 190},
        "eval": {"tasks": 40},
    },
    "tiny-imagenet": {
        "format": "image-folder",
        "root": DATA / "tiny-imagenet" / "tiny-imagenet-100.zip",
        "image": {"size": 32},
        "train": {"tasks": 200, "classes": 80},
        "eval": {"tasks": 40},
    },
}
LEARNERS = {
    "digits": {"name": "maml", "inner_lr": 0.4, "steps": 3},
    "omniglot": {"name": "maml", "inner_lr": 0.4, "steps": 3},
    "tiny-imagenet": {"name": "maml", "inner_lr": 0.1, "steps": 5},
}
EPOCHS = {"digits": (5, 30), "omniglot": (8, 40), "tiny-imagenet": (8, 40)}
"""After how many epochs a checkpoint is early, and late."""

NOISE: dict[str, Callable[[TaskSet, int], Planted]] = {
    "clean": lambda tasks, seed: flip_labels(tasks, 0.0, seed=seed),
    "flips-2": lambda tasks, seed: flip_labels(tasks, 0.02, seed=seed),
    "flips-5": lambda tasks, seed: flip_labels(tasks, 0.05, seed=seed),
    "flips-10": lambda tasks, seed: flip_labels(tasks, 0.10, seed=seed),
    "flips-20": lambda tasks, seed: flip_labels(tasks, 0.20, seed=seed),
    "confusable-10": lambda tasks, seed: flip_labels(tasks, 0.1, seed=seed, confusable=True),
    "support-10": lambda tasks, seed: flip_labels(tasks, 0.1, seed=seed, sets=("support",)),
    "query-10": lambda tasks, seed: flip_labels(tasks, 0.1, seed=seed, sets=("query",)),
    "permuted": lambda tasks, seed: plant(
        tasks, flip_tasks=0, flip_share=0.1, permute_tasks=len(tasks) // 10, seed=seed
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=EPOCHS, default="digits")
    parser.add_argument("--noise", choices=NOISE, nargs="+", default=list(NOISE))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    train, evaluation = tasks_of(args.dataset, args.seed)
    for noise in args.noise:
        planted = NOISE[noise](train, args.seed)
        folder = args.out / f"{args.dataset}-{noise}-{args.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        problem = problem_of(args.dataset, folder, planted.task_set, evaluation, args.seed)
        for age, path in trained(problem, folder, EPOCHS[args.dataset]).items():
            started = time.perf_counter()
            found = scores(problem, load_weights(problem, path).params, planted, path)
            seconds = time.perf_counter() - started
            case = {"dataset": args.dataset, "noise": noise, "seed": args.seed, "checkpoint": age}
            print(json.dumps({**case, **found, "seconds": round(seconds, 1)}), flush=True)


def config_of(dataset: str, tasks: dict[str, Any], folder: Path, seed: int) -> Config:
    return Config.model_validate(
        {
            "model": {"name": "conv4", "hidden": 16, "in_channels": 3 if "tiny" in dataset else 1},
            "learner": LEARNERS[dataset],
            "checkpoint": folder / "late.safetensors",
            "tasks": tasks,
            "training": {
                "epochs": EPOCHS[dataset][1],
                "batch": 20,
                "lr": 0.003 if "tiny" in dataset else 0.005,
                "weight_decay": 0.002,
                "seed": seed,
            },
        }
    )


def tasks_of(dataset: str, seed: int) -> tuple[TaskSet, TaskSet]:
    if dataset == "digits":
        return digit_tasks(n_train=160, n_eval=40, ways=5, shots=5, queries=5, seed=seed)
    tasks = TASKS[dataset]
    seeded = {
        **tasks,
        "train": {**tasks["train"], "seed": seed},
        "eval": {**tasks["eval"], "seed": seed + 1},
    }
    return load_tasks(config_of(dataset, seeded, Path(), seed).tasks)


def problem_of(
    dataset: str, folder: Path, train: TaskSet, evaluation: TaskSet, seed: int
) -> Problem:
    """A problem over tasks in memory, with those of any file for the rest."""
    from metaaudit.inputs.episodes import write_episodes

    for name, tasks in (("train", train), ("eval", evaluation)):
        if not (folder / f"{name}.h5").exists():
            write_episodes(folder / f"{name}.h5", tasks)
    files = {"format": "episodes", "train": folder / "train.h5", "eval": folder / "eval.h5"}
    return prepare(config_of(dataset, files, folder, seed))


def trained(problem: Problem, folder: Path, epochs: tuple[int, int]) -> dict[str, Path]:
    """The early and the late checkpoint, from the folder where they are there."""
    paths = {age: folder / f"{age}.safetensors" for age in ("early", "late")}
    if not all(path.exists() for path in paths.values()):

        def keep(state: TrainingState) -> None:
            for path, epoch in zip(paths.values(), epochs, strict=True):
                if state.epoch == epoch:
                    write_checkpoint(path, state.params, {})

        trainer = MetaTrainer(problem.as_trained, problem.train, problem.config.training)
        trainer.run(TrainingState.initial(problem.template), keep)
    return paths


def evidence_of(
    problem: Problem, params: Params, tasks: TaskSet, file: Path
) -> dict[str, Evidence]:
    """The evidence of each signal that is none of probabilities, and of the others together."""
    parts = (problem.objective, params, tasks, problem.batching)
    if not file.exists():
        np.savez(
            file,
            crossfit=cross_fit(*parts, MislabelConfig()),
            adapted=adapted_fit(*parts),
            left_out=leave_one_out_fit(*parts),
            own=own_influence(*parts)[:, 0],
            itself=self_influence(problem.unrolled(params, tasks), problem.layers()),
        )
    support = file.with_suffix(".support.npz")
    if not support.exists():
        np.savez(support, support=support_fit(*parts, MislabelConfig()))
    found, folded = np.load(file), np.load(support)["support"]
    both = Evidence(found["crossfit"], found["adapted"], folded)
    return {
        "": both,
        "leave-one-out": replace(both, left_out=found["left_out"]),
        "own-influence": replace(both, other=found["own"]),
        "self-influence": replace(both, other=found["itself"]),
    }


def scores(problem: Problem, params: Params, planted: Planted, files: Path) -> dict[str, Any]:
    train, trusted = problem.train, problem.evaluation
    ours = evidence_of(problem, params, train, files.with_suffix(".train.npz"))
    theirs = evidence_of(problem, params, trusted, files.with_suffix(".eval.npz"))
    judgement = judge(ours[""].crossfit, train)
    wrong, result = planted.wrong, {}
    query = np.array([name == "query" for _, name, _ in trusted.instances()])
    found = detect(train, ours[""], trusted, theirs[""], MislabelConfig())
    result["accuracy"] = float(judge(theirs[""].adapted, trusted).margin[query].__lt__(0).mean())
    if wrong.any():
        result["signals"] = {}
        for signal in get_args(Signal):
            values = signal_values(signal, ours.get(signal, ours[""]), judgement, train)
            result["signals"][signal] = quality(wrong, values)
    result["planted"] = int(wrong.sum())
    result["estimated"] = round(float(found.wrong.sum()), 1)
    result["harder"] = round(found.harder, 2)
    result["flags"] = {
        str(rate): flags(found.q_value <= rate, wrong) for rate in (0.01, 0.05, 0.1, 0.2)
    }
    result["items_flagged"] = int(found.item_mislabeled.sum())
    losses = total_gradients(problem.unrolled(params, train)).outer_loss
    permuted = np.isin(np.arange(len(train)), planted.permuted)
    result["tasks"] = {
        "contradictory": flags(found.contradictions.q_value <= 0.1, permuted),
        "noisy": int((found.noisy_q <= 0.1).sum()),
        "outlier": int(upper_outliers(np.log(losses), 0.1, 4.0).flagged.sum()),
    }
    if permuted.any():
        result["permuted_auroc"] = {
            "contradiction": round(roc_auc_score(permuted, found.contradictions.ratio), 3),
            "outer_loss": round(roc_auc_score(permuted, losses), 3),
            "label_noise": round(roc_auc_score(permuted, found.label_noise), 3),
        }
    return result


def quality(wrong: np.ndarray, values: np.ndarray) -> list[float]:
    """AUROC and average precision."""
    found = roc_auc_score(wrong, values), average_precision_score(wrong, values)
    return [round(float(value), 3) for value in found]


def flags(flagged: np.ndarray, wrong: np.ndarray) -> list[float]:
    """Number of flags, the share of them that is false, and the share of what is wrong in them."""
    count, hits = int(flagged.sum()), int((flagged & wrong).sum())
    share = hits / max(1, int(wrong.sum()))
    return [count, round(1 - hits / count, 3) if count else 0.0, round(share, 3)]


if __name__ == "__main__":
    main()
