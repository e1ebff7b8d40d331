"""The sample configurations of four data sets: accuracy, time to load and to score, peak memory.

mini-ImageNet and FC100 are files in exactly those formats, written from Tiny ImageNet. Every
command is a process of its own; times and memory are those of its manifest.

    python tests/benchmarks/datasets.py --out DIR [--only mnist fc100]
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

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.small import DATA
from tests.written import divided, tiny_imagenet, write_metaoptnet, write_mini_imagenet

SAMPLES = Path(__file__).parents[2] / "sample_configs"


def prepared(name: str, out: Path) -> dict[str, Any]:
    """Writes a data set where it has to be written; returns what to override."""
    if name == "mini_imagenet":
        root = out / "mini-imagenet"
        if not root.exists():
            write_mini_imagenet(root, divided(tiny_imagenet(84, 100)))
        return {"tasks.root": root}
    if name == "fc100":
        root = out / "FC100"
        if not root.exists():
            write_metaoptnet(root, divided(tiny_imagenet(32, 100)))
        return {"tasks.root": root}
    return {"tasks.root": (DATA / name).resolve()}


def command(*args: object) -> tuple[str, float]:
    """Standard output and seconds of a command."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "metaaudit", *map(str, args)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--only", nargs="+", default=["omniglot", "mnist", "fc100", "mini_imagenet"]
    )
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["METAAUDIT_CACHE_DIR"] = str(args.out / "cache")
    for name in args.only:
        config, run = SAMPLES / f"{name}.yaml", args.out / f"{name}-run-{time.time_ns()}"
        settings = {
            **prepared(name, args.out),
            "checkpoint": args.out / f"{name}.safetensors",
        }
        options = [
            part
            for key, value in settings.items()
            for part in ("--set", f"{key}={json.dumps(str(value))}")
        ]
        trained = ""
        if not settings["checkpoint"].exists():
            _, seconds = command("train", config, *options)
            trained = f"trained in {seconds:.0f} s; "
        fit = [
            line for line in command("validate", config, *options)[0].splitlines() if "fit" in line
        ]
        _, seconds = command("score", config, "--run", run, *options)
        manifest = json.loads((run / "manifest.json").read_text())
        print(
            f"{name}: accuracy {manifest['evaluation']['mean_accuracy']:.3f}; {trained}"
            f"load {manifest['timings_s']['load']:.2f} s, score {seconds:.0f} s "
            f"({manifest['coverage']['tasks']} tasks, {manifest['coverage']['instances']} "
            f"instances), peak {manifest['peak_memory_mb']:.0f} MB",
            *fit,
            json.dumps(manifest["timings_s"]),
            sep="\n  ",
            flush=True,
        )


if __name__ == "__main__":
    main()
