"""Time and quality of an audit of Omniglot tasks with planted wrong labels.

Trains and scores through the command line, each command in a process of its own, and prints one
JSON object. The reference for every time is meta-training in the same run::

    python tests/benchmarks/audit_omniglot.py --epochs 40 --out /tmp/omniglot-audit
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import yaml
from sklearn.metrics import roc_auc_score

from metaaudit.config.tasks import EpisodeConfig, OmniglotConfig
from metaaudit.inputs.episodes import write_episodes
from metaaudit.inputs.tasks import load_tasks
from metaaudit.training import Planted, plant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/omniglot"))
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--clean", action="store_true", help="plant nothing")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    planted = write_tasks(args)
    configs = [write_config(args, f"eval{i}") for i in (0, 1)]
    os.environ["METAAUDIT_CACHE_DIR"] = str(args.out / "cache")
    train_s = metaaudit("train", configs[0])
    cold_s = metaaudit("score", configs[0], "--run", args.out / "cold")
    warm_s = metaaudit("score", configs[1], "--run", args.out / "warm")
    with (args.out / "checkpoint.log.csv").open() as file:
        log = list(csv.DictReader(file))
    epoch_s = float(np.mean([float(line["seconds"]) for line in log]))
    cold, warm = (
        json.loads((args.out / run / "manifest.json").read_text()) for run in ("cold", "warm")
    )
    result = {
        "tasks": args.tasks,
        "epochs": args.epochs,
        "train_s": train_s,
        "train_s_per_epoch": epoch_s,
        "evaluation": cold["evaluation"],
        "score_cold_s": cold_s,
        "score_warm_s": warm_s,
        "score_over_train": cold_s / train_s,
        "warm_over_cold": warm_s / cold_s,
        "score_in_epochs": cold_s / epoch_s,
        "timings_cold_s": cold["timings_s"],
        "timings_warm_s": warm["timings_s"],
        "peak_memory_mb": cold["peak_memory_mb"],
        "curvature_scale": cold["solver"]["curvature_scale"],
        "quality": quality(args.out / "cold", planted),
    }
    print(json.dumps(result, indent=2))


def write_tasks(args: argparse.Namespace) -> Planted:
    """Writes training tasks with planted errors and two evaluation sets."""

    def sample(seed: int) -> OmniglotConfig:
        return OmniglotConfig(
            format="omniglot",
            root=args.data,
            episode=EpisodeConfig(ways=5, shots=5, queries=5),
            train={"tasks": args.tasks, "classes": 190, "seed": args.seed},
            eval={"tasks": 40, "seed": seed},
        )

    train, first = load_tasks(sample(1))
    _, second = load_tasks(sample(2))
    share = 0 if args.clean else 1
    planted = plant(
        train,
        flip_tasks=share * args.tasks * 3 // 10,
        flip_share=0.1,
        permute_tasks=share * args.tasks // 20,
        seed=args.seed,
    )
    write_episodes(args.out / "train.h5", planted.task_set)
    write_episodes(args.out / "eval0.h5", first)
    write_episodes(args.out / "eval1.h5", second)
    return planted


def write_config(args: argparse.Namespace, evaluation: str) -> Path:
    config = {
        "model": {"name": "conv4", "hidden": args.hidden},
        "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
        "checkpoint": "checkpoint.safetensors",
        "tasks": {"format": "episodes", "train": "train.h5", "eval": f"{evaluation}.h5"},
        "training": {
            "epochs": args.epochs,
            "batch": 25,
            "lr": 0.003,
            "weight_decay": 0.005,
            "seed": args.seed,
        },
    }
    path = args.out / f"{evaluation}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def metaaudit(*arguments: object) -> float:
    """Runs a command and returns its wall-clock seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "metaaudit", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def quality(run: Path, planted: Planted) -> dict[str, float]:
    """AUROC of the signals against the planted errors."""
    with h5py.File(run / "scores.h5") as file:
        crossfit = file["instances/signal"][()]
        score = file["instances/mislabel_score"][()]
        loss = file["instances/loss"][()]
        influence = file["instances/influence"][()]
    with (run / "tasks.csv").open() as file:
        tasks = {row["task_id"]: row for row in csv.DictReader(file)}
    with (run / "instances.csv").open() as file:
        flagged = sum(row["mislabeled"] == "true" for row in csv.DictReader(file))
    counts = {
        "harmful_tasks_flagged": sum(row["harmful"] == "true" for row in tasks.values()),
        "instances_flagged": flagged,
        "planted_instances": int(planted.wrong.sum()),
    }
    if not planted.wrong.any():
        return counts
    in_permuted = np.array([row in planted.permuted for row, _, _ in planted.clean.instances()])
    signals = {
        "crossfit_loss": crossfit,
        "mislabel_score": score,
        "post_adaptation_loss": loss,
        "influence": influence,
    }
    rest = ~in_permuted
    result: dict[str, float] = {**counts}
    for name, values in signals.items():
        result[f"auroc_{name}_all"] = roc_auc_score(planted.wrong, values)
        result[f"auroc_{name}_flips"] = roc_auc_score(planted.wrong[rest], values[rest])
    permuted = np.zeros(len(planted.clean), dtype=bool)
    permuted[list(planted.permuted)] = True
    for name in ("influence", "label_noise", "outer_loss"):
        values = [float(tasks[task_id][name]) for task_id in planted.clean.task_ids]
        result[f"auroc_permuted_tasks_by_{name}"] = roc_auc_score(permuted, values)
    return result


if __name__ == "__main__":
    main()
