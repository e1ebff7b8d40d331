"""A trained learner on Omniglot tasks, as objects: what the benchmarks of curvature start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from metaaudit.config.schema import Config
from metaaudit.console import Messages
from metaaudit.loading import load_weights, prepare
from metaaudit.meta_train import run
from metaaudit.models import Params
from metaaudit.problem import Problem

LEARNERS: dict[str, dict[str, Any]] = {
    "maml": {"name": "maml", "inner_lr": 0.4, "steps": 3},
    "imaml": {"name": "imaml", "inner_lr": 0.4, "steps": 30, "proximity": 0.5, "tolerance": 1e-3},
}


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/omniglot"))
    parser.add_argument("--out", type=Path, required=True, help="a folder; checkpoints are reused")
    parser.add_argument("--hidden", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--eval-tasks", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learner", choices=LEARNERS, default="maml")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    return parser


def load(args: argparse.Namespace) -> tuple[Problem, Params]:
    """The problem and the weights of a checkpoint, trained where there is none."""
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out.resolve() / f"{args.learner}-{args.hidden}-{args.tasks}.safetensors"
    config = Config.model_validate(
        {
            "model": {"name": "conv4", "hidden": args.hidden},
            "learner": LEARNERS[args.learner],
            "checkpoint": checkpoint,
            "tasks": {
                "format": "omniglot",
                "root": args.data.resolve(),
                "train": {"tasks": args.tasks, "classes": 190},
                "eval": {"tasks": args.eval_tasks},
            },
            "training": {"epochs": args.epochs, "batch": 10, "lr": 0.005, "weight_decay": 0.005},
            "compute": {"dtype": args.dtype, "device": "cpu"},
        }
    )
    if not checkpoint.exists():
        run(config, Messages(), resume=False, overwrite=False)
    problem = prepare(config)
    return problem, load_weights(problem).params


def spearman(a: Any, b: Any) -> float:
    """Rank correlation of two lists of scores."""
    return float(spearmanr(a, b).statistic)
