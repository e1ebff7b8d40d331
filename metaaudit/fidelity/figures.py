"""Plots as SVG and PNG: the same bytes for the same data."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from metaaudit.fidelity.results import Figure, Series
from metaaudit.printable import printable

_TEXT, _MUTED, _LINE, _DANGER = "#161a21", "#566070", "#e0e4ea", "#c22340"
_COLOURS = ("#3654d1", "#0b6a75", "#845400", "#6d3fc0", "#14733f", "#566070")
"""Those of the HTML report in light mode; a level is drawn in its red."""
_DASHES = ("--", ":", "-.")
WIDTH = 6.4
TITLE_WIDTH = 90
LEGEND_WIDTH = 72
"""Characters of a row of the legend."""

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _TEXT,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


def draw(figure: Figure, folder: Path) -> None:
    """Writes ``<name>.svg`` and ``<name>.png`` into a folder; nothing where there is no series."""
    if not figure.series:
        return
    figure = _printable(figure)
    bars = all(isinstance(x, str) for series in figure.series for x in series.x)
    # "default" first: a reader's own matplotlibrc must not change the plot.
    with style.context(["default", {**_STYLE, "svg.hashsalt": figure.name}]):
        canvas = Canvas(figsize=_size(figure, bars), layout="constrained")
        axes = canvas.subplots()
        (_bars if bars else _lines)(axes, figure)
        canvas.suptitle(fill(figure.title, TITLE_WIDTH), x=0.01, ha="left", fontsize=10)
        labels = axes.get_legend_handles_labels()[1]
        if len(labels) > 1:
            columns = LEGEND_WIDTH // max(map(len, labels))
            canvas.legend(loc="outside lower left", ncols=max(1, min(3, columns)))
        canvas.savefig(folder / f"{figure.name}.svg", metadata={"Date": None})
        canvas.savefig(folder / f"{figure.name}.png")


def _printable(figure: Figure) -> Figure:
    """The same without control characters, which no SVG may have."""
    return replace(
        figure,
        title=printable(figure.title),
        x_label=printable(figure.x_label),
        y_label=printable(figure.y_label),
        series=tuple(_printable_series(series) for series in figure.series),
        levels={printable(name): value for name, value in figure.levels.items()},
    )


def _printable_series(series: Series) -> Series:
    names = tuple(printable(x) for x in series.x if isinstance(x, str))
    return replace(series, name=printable(series.name), x=names or series.x)


def _size(figure: Figure, bars: bool) -> tuple[float, float]:
    """In inches: as high as the bars need."""
    if not bars:
        return WIDTH, 3.9
    return WIDTH, 1.5 + len(_names(figure)) * (0.14 + 0.16 * len(figure.series))


def _names(figure: Figure) -> list[str]:
    """Of all bars, in order."""
    return list(dict.fromkeys(str(x) for series in figure.series for x in series.x))


def _bars(axes: Axes, figure: Figure) -> None:
    """Horizontal bars, so that long names can be read; the first one on top."""
    names = _names(figure)
    height = 0.8 / len(figure.series)
    for number, series in enumerate(figure.series):
        shift = height * (number - (len(figure.series) - 1) / 2)
        axes.barh(
            [names.index(str(x)) + shift for x in series.x],
            series.y,
            0.9 * height,
            xerr=series.error,
            color=_COLOURS[number % len(_COLOURS)],
            error_kw={"ecolor": _TEXT, "elinewidth": 1.0, "capsize": 2.5},
            label=series.name,
        )
    for (name, value), dashes in zip(figure.levels.items(), cycle(_DASHES), strict=False):
        axes.axvline(value, color=_DANGER, linestyle=dashes, linewidth=1.4, label=name)
    axes.axvline(0, color=_MUTED, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(figure.y_label)
    axes.set_ylabel(figure.x_label)


def _lines(axes: Axes, figure: Figure) -> None:
    for number, series in enumerate(figure.series):
        x = np.asarray(series.x, dtype=np.float64)
        axes.errorbar(
            x,
            series.y,
            yerr=series.error,
            color=_COLOURS[number % len(_COLOURS)],
            # Beyond six lines colours return, with another stroke.
            linestyle=("-", *_DASHES)[number // len(_COLOURS) % (1 + len(_DASHES))],
            linewidth=1.6,
            marker="o",
            markersize=4,
            capsize=2.5,
            elinewidth=0.9,
            label=series.name,
        )
    for (name, value), dashes in zip(figure.levels.items(), cycle(_DASHES), strict=False):
        axes.axhline(value, color=_DANGER, linestyle=dashes, linewidth=1.4, label=name)
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
