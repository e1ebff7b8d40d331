"""What ``learned_selection.py`` measured, as Markdown tables and two figures.

Each log is named ``DATA-BAD.log``::

    python tests/benchmarks/selection_summary.py --out FOLDER omniglot-flips.log digits-flips.log
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.stats import t

from metaaudit.fidelity.figures import draw
from metaaudit.fidelity.results import Figure, Series

BASELINES = {name: name for name in ("random", "loss", "cross-fitted", "influence")}
BASE = "no selection"


@dataclass(frozen=True)
class Measured:
    """One log.

    Attributes:
        data: The data set.
        bad: What is wrong with a part of it.
        lines: Of the log.
    """

    data: str
    bad: str
    lines: list[dict[str, float | str]]

    @classmethod
    def read(cls, path: Path) -> Measured:
        data, _, bad = path.stem.rpartition("-")
        return cls(data, bad, [json.loads(line) for line in path.read_text("utf-8").splitlines()])

    @cached_property
    def strategies(self) -> list[str]:
        return list(dict.fromkeys(str(line["strategy"]) for line in self.lines))

    def of(self, strategy: str, what: str) -> dict[int, float]:
        """A number by seed."""
        return {
            int(line["seed"]): float(line[what])
            for line in self.lines
            if line["strategy"] == strategy and what in line
        }

    def gain(self, strategy: str) -> str:
        """Accuracy over that without selection, of the same seeds, with an interval of 95%."""
        base, own = self.of(BASE, "accuracy"), self.of(strategy, "accuracy")
        gains = 100 * np.array([own[seed] - base[seed] for seed in own])
        if len(gains) < 2:
            return f"{gains.mean():+.1f}"
        wide = t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
        return f"{gains.mean():+.1f} ± {wide:.1f}"

    def table(self) -> list[str]:
        """Rows of Markdown."""
        seeds, base = len(self.of(BASE, "accuracy")), np.mean([*self.of(BASE, "accuracy").values()])
        rows = [
            f"{self.data}, {self.bad}: {seeds} seeds, {100 * base:.1f}% without selection",
            "",
            "| strategy | AUROC (range) | points of accuracy | seconds |",
            "|---|---|---|---|",
        ]
        for strategy in self.strategies:
            if strategy != BASE:
                found = [*self.of(strategy, "auroc").values()]
                told = f"{np.mean(found):.3f} ({min(found):.3f}-{max(found):.3f})" if found else ""
                spent = [*self.of(strategy, "seconds").values()]
                seconds = f"{np.mean(spent):.1f}" if spent else ""
                rows.append(f"| {strategy} | {told} | {self.gain(strategy)} | {seconds} |")
        return [*rows, ""]

    def learned(self) -> dict[str, str]:
        """What to call the strategies of learned selection that are drawn."""
        found = {}
        for raw, told in (("embedding", "raw embedding"), ("features", "features")):
            sizes = [name for name in self.strategies if name.startswith(f"mts, {raw}")]
            found[sizes[0]] = f"{told}, batch of 8"
            found[sizes[-1]] = f"{told}, large batch"
        return found

    def mean(self, strategy: str) -> float:
        """Mean AUROC of a strategy."""
        return float(np.mean([*self.of(strategy, "auroc").values()]))


def by_problem(measured: list[Measured], which: list[dict[str, str]]) -> tuple[Series, ...]:
    """Mean AUROC in every problem, a series for each of what its strategies are called."""
    problems = tuple(f"{one.data}, {one.bad}" for one in measured)
    return tuple(
        Series(
            called,
            problems,
            tuple(
                one.mean(names[place])
                for one, names in zip(measured, map(list, which), strict=True)
            ),
        )
        for place, called in enumerate(which[0].values())
    )


def overview(measured: list[Measured]) -> list[str]:
    """AUROC, and points of accuracy, of the same strategies in each problem."""
    names = ["the good ones", *BASELINES, *measured[0].learned().values()]
    header = ["problem", "seeds", *names]
    rows = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for one in measured:
        strategies = ["the good ones", *BASELINES, *one.learned()]
        cells = [f"{one.data}, {one.bad}", str(len(one.of(BASE, "accuracy")))]
        for strategy in strategies:
            found = [*one.of(strategy, "auroc").values()]
            cells.append(
                ", ".join([*([f"{np.mean(found):.3f}"] if found else []), one.gain(strategy)])
            )
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="an existing folder, for figures")
    args = parser.parse_args()
    measured = [Measured.read(path) for path in args.logs]
    print("\n".join(overview(measured)))
    for one in measured:
        print("\n".join(one.table()))
    flips = [one for one in measured if one.bad == "flips"]
    draw(
        Figure(
            "labels",
            "Wrong labels: what each score finds of them",
            "",
            "AUROC (a half is chance)",
            by_problem(flips, [BASELINES] * len(flips)),
            {"chance": 0.5},
        ),
        args.out,
    )
    draw(
        Figure(
            "selection",
            "Learned selection: what it finds of bad data, by what it sees and how much at once",
            "",
            "AUROC (a half is chance)",
            by_problem(measured, [one.learned() for one in measured]),
            {"chance": 0.5},
        ),
        args.out,
    )


if __name__ == "__main__":
    main()
