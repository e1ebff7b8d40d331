"""How much faster two processes score than one, and whether the scores are the same.

Trains a checkpoint of Omniglot for an epoch, scores it with one process and with several, each time
with an empty cache, and prints one JSON object::

    python tests/benchmarks/scale_out.py --out DIR --processes 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/omniglot"))
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--tasks", type=int, default=80)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    config = args.out / "metaaudit.yaml"
    config.write_text(yaml.safe_dump(settings(args)))
    run(args.out, ["-m", "metaaudit", "train", config])
    each = {}
    for processes in (1, args.processes):
        start = ["-m", "torch.distributed.run", "--nproc-per-node", processes, "-m", "--"]
        command = [*(start if processes > 1 else ["-m"]), "metaaudit", "score", config]
        seconds = run(
            args.out / f"cache-{processes}", [*command, "--run", args.out / str(processes)]
        )
        stages = json.loads((args.out / str(processes) / "manifest.json").read_text())["timings_s"]
        each[processes] = {"seconds": seconds, "stages": stages}
    one, several = (each[count]["seconds"] for count in (1, args.processes))
    result = {"ratio": one / several, "largest_difference": difference(args), **each}
    print(json.dumps(result, indent=2))


def settings(args: argparse.Namespace) -> dict[str, object]:
    return {
        "model": {"name": "conv4", "hidden": args.hidden},
        "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
        "checkpoint": "checkpoint.safetensors",
        "tasks": {
            "format": "omniglot",
            "root": str(args.data.resolve()),
            "episode": {"ways": 5, "shots": 5, "queries": 5},
            "train": {"tasks": args.tasks, "classes": 190, "seed": 0},
            "eval": {"tasks": max(10, args.tasks // 5), "seed": 1},
        },
        "training": {"epochs": 1, "batch": 20, "lr": 0.003, "weight_decay": 0.005},
    }


def run(cache: Path, arguments: list[object]) -> float:
    """Seconds of a command."""
    environment = {**os.environ, "METAAUDIT_CACHE_DIR": str(cache)}
    command = [sys.executable, *map(str, arguments)]
    started = time.perf_counter()
    subprocess.run(
        command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - started


def difference(args: argparse.Namespace) -> dict[str, float]:
    """Largest difference of the influences, relative to the largest influence."""
    found = {}
    with (
        h5py.File(args.out / "1" / "scores.h5") as one,
        h5py.File(args.out / str(args.processes) / "scores.h5") as other,
    ):
        for name in ("task_influence", "instances/influence"):
            values = one[name][()]
            found[name] = float(np.abs(other[name][()] - values).max() / np.abs(values).max())
    return found


if __name__ == "__main__":
    main()
