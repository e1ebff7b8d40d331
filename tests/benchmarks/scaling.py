"""How time and memory of an audit grow with the number of tasks, and how long its report takes.

Scores sets of digits of growing size, each in a process of its own with an empty cache, and prints
one JSON object. Time is without what a process does once: it is that beyond an audit of the fewest
tasks, so that the exponent is of the growth itself::

    python tests/benchmarks/scaling.py --out DIR --tasks 200 400 800 1600 3200 6400
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import yaml

from metaaudit.demo import digit_tasks
from metaaudit.inputs.episodes import write_episodes

FEWEST = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--tasks", type=int, nargs="+", default=[200, 400, 800, 1600, 3200, 6400])
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    write_tasks(args.out, FEWEST)
    metaaudit("train", config_of(args.out, FEWEST))
    least = audited(args.out, FEWEST)
    each = [audited(args.out, count) for count in args.tasks]
    beyond = [one["score_s"] - least["score_s"] for one in each]
    more = [count - FEWEST for count in args.tasks]
    exponent = float(np.polyfit(np.log(more), np.log(beyond), 1)[0])
    growth = each[-1]["peak_memory_mb"] / each[0]["peak_memory_mb"]
    print(json.dumps({"exponent": exponent, "memory_growth": growth, "runs": [least, *each]}))


def audited(folder: Path, count: int) -> dict[str, Any]:
    """Scores and reports so many tasks."""
    write_tasks(folder, count)
    os.environ["METAAUDIT_CACHE_DIR"] = str(folder / f"cache-{count}")
    run = folder / f"run-{count}"
    score_s = metaaudit("score", config_of(folder, count), "--run", run)
    report_s = metaaudit("report", run, "-f", f"html={folder / f'{count}.html'}")
    manifest = json.loads((run / "manifest.json").read_text())
    return {
        "tasks": count,
        "score_s": score_s,
        "report_s": report_s,
        "peak_memory_mb": manifest["peak_memory_mb"],
        "timings_s": manifest["timings_s"],
    }


def write_tasks(folder: Path, count: int) -> None:
    if not (folder / f"train-{count}.h5").exists():
        train, held_out = digit_tasks(
            n_train=count, n_eval=20, ways=5, shots=5, queries=5, seed=count
        )
        write_episodes(folder / f"train-{count}.h5", train)
        write_episodes(folder / f"eval-{count}.h5", held_out)


def config_of(folder: Path, count: int) -> Path:
    path = folder / f"{count}.yaml"
    settings = {
        "model": {"name": "mlp", "hidden": [32]},
        "learner": {"name": "maml", "inner_lr": 0.3, "steps": 3},
        "checkpoint": "checkpoint.safetensors",
        "tasks": {"format": "episodes", "train": f"train-{count}.h5", "eval": f"eval-{count}.h5"},
        "training": {"epochs": 5, "batch": 10, "lr": 0.005, "weight_decay": 0.002},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def metaaudit(*arguments: object) -> float:
    """Runs a command and returns its wall-clock seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "metaaudit", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
