"""How long ``metaaudit --help`` takes beside a Typer application that does nothing.

Prints one JSON object, medians of interleaved runs in seconds::

    python tests/benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

BARE = """
import typer

app = typer.Typer()


@app.command()
def one() -> None:
    pass


@app.command()
def two() -> None:
    pass


app()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    commands = {"bare": ["-c", BARE, "--help"], "metaaudit": ["-m", "metaaudit", "--help"]}
    took: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.repeats):
        for name, arguments in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            took[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    print(json.dumps({**medians, "ratio": medians["metaaudit"] / medians["bare"]}, indent=2))


if __name__ == "__main__":
    main()
