"""How often a clean data set is flagged: trains and audits it for several seeds.

Prints one JSON object a seed, with the number of flags of each rule and what came nearest::

    python tests/benchmarks/false_alarms.py --dataset digits --seeds 0 1 2 3 4 --out DIR
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from metaaudit import audit, meta_train
from metaaudit.config import Config
from metaaudit.console import Messages
from metaaudit.demo import digit_tasks
from metaaudit.findings import RULES
from metaaudit.inputs.episodes import write_episodes
from metaaudit.inputs.tasks import load_tasks
from metaaudit.runs.saved import SavedRun

DATA = Path(os.environ.get("METAAUDIT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=["digits", "omniglot"], default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()
    for seed in args.seeds:
        folder = args.out / f"{args.dataset}-{seed}"
        folder.mkdir(parents=True)
        os.environ["METAAUDIT_CACHE_DIR"] = str(folder / "cache")
        write_tasks(args.dataset, seed, folder)
        config = config_of(folder, args.epochs, seed)
        trained = meta_train.run(config, Messages(), resume=False, overwrite=False)
        audit.run(config, folder / "run", Messages())
        found = summary(SavedRun.open(folder / "run"))
        print(json.dumps({"seed": seed, "accuracy": round(trained.accuracy, 3), **found}))


def write_tasks(dataset: str, seed: int, folder: Path) -> None:
    if dataset == "digits":
        sets = digit_tasks(n_train=160, n_eval=40, ways=5, shots=5, queries=5, seed=seed)
    else:
        tasks = {
            "format": "omniglot",
            "root": DATA / "omniglot",
            "train": {"tasks": 200, "classes": 190, "seed": seed},
            "eval": {"tasks": 40, "seed": seed + 1},
        }
        sets = load_tasks(config_of(folder, 1, seed, tasks).tasks)
    for name, task_set in zip(("train", "eval"), sets, strict=True):
        write_episodes(folder / f"{name}.h5", task_set)


def config_of(folder: Path, epochs: int, seed: int, tasks: dict[str, Any] | None = None) -> Config:
    files = {"format": "episodes", "train": folder / "train.h5", "eval": folder / "eval.h5"}
    return Config.model_validate(
        {
            "model": {"name": "conv4", "hidden": 16},
            "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
            "checkpoint": folder / "checkpoint.safetensors",
            "tasks": tasks or files,
            "training": {
                "epochs": epochs,
                "batch": 20,
                "lr": 0.005,
                "weight_decay": 0.001,
                "seed": seed,
            },
        }
    )


def summary(run: SavedRun) -> dict[str, Any]:
    """Flags by rule, and the statistics that came nearest to one."""
    return {
        "flagged": {rule: run.findings.counts.flagged[rule] for rule in RULES},
        "mislabeled_occurrences": run.findings.counts.mislabeled_instances,
        "largest_influence_z": round(max(row.influence_z for row in run.tasks), 2),
        "largest_outlier_z": round(max(row.outlier_z for row in run.tasks), 2),
        "smallest_q": round(min(row.q_value for row in run.instances), 3),
    }


if __name__ == "__main__":
    main()
