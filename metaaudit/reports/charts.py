"""Charts as inline SVG: no fonts, no network, the page's colours, the same bytes every time."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

# matplotlib wants colours, the page wants CSS that follows light and dark mode: draw with
# stand-ins and replace them in the SVG.
_TEXT, _LINE, _ACCENT, _DANGER = "#010101", "#020202", "#030303", "#040404"
_INK = "#050505"
_CSS = {
    _TEXT: "var(--muted)",
    _LINE: "var(--line)",
    _ACCENT: "var(--accent)",
    _DANGER: "var(--danger)",
    _INK: "var(--text)",
}
_STYLE = {
    "svg.fonttype": "none",
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelsize": 9,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}
_SIZE = (3.9, 2.4)
Floats = npt.NDArray[np.float64]
MAX_LINES = 60
MAX_POINTS = 200  # of a thin line; the chart has no more pixels to show them


@dataclass(frozen=True)
class Scores:
    """What a histogram shows.

    Attributes:
        values: The scores.
        flagged: Which of them are findings.
        label: Name of the score.
        counted: Name of what is counted.
        threshold: Where the flags begin; none where nothing is flagged, or no single score decides.
        null: Scores of what is known to be right; drawn as an outline, scaled to as many.
    """

    values: Sequence[float]
    flagged: Sequence[bool]
    label: str
    counted: str
    threshold: float | None = None
    null: Floats | None = None


def histogram(name: str, scores: Scores) -> str:
    """A histogram on a logarithmic count, the findings in front in their own colour.

    Args:
        name: Unique on the page; keeps the SVG's ids apart.
        scores: What it shows.
    """
    numbers = np.asarray(scores.values, dtype=np.float64)
    marked = np.asarray(scores.flagged, dtype=bool)
    finite = np.isfinite(numbers)
    null = np.empty(0) if scores.null is None else scores.null[np.isfinite(scores.null)]
    bins = np.histogram_bin_edges(np.concatenate([numbers[finite], null]), bins=40)

    def draw(axes: Axes) -> None:
        _bars(axes, numbers[finite], bins, _ACCENT)
        _bars(axes, numbers[finite & marked], bins, _DANGER)
        if len(null):
            weights = np.full(len(null), finite.sum() / len(null))
            axes.hist(
                null,
                bins=bins.tolist(),
                weights=weights,
                color=_INK,
                histtype="step",
                linewidth=1.1,
            )
        if scores.threshold is not None:
            axes.axvline(scores.threshold, color=_DANGER, linestyle="--", linewidth=1.2)
        _logarithmic(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(scores.label)
        axes.set_ylabel(scores.counted)

    return _svg(name, f"Histogram of {scores.label}", draw)


def _bars(axes: Axes, numbers: Floats, bins: Floats, colour: str) -> None:
    counts, _ = np.histogram(numbers, bins)
    some = counts > 0
    middle, width = (bins[1:] + bins[:-1]) / 2, bins[1] - bins[0]
    axes.bar(middle[some], counts[some], 0.88 * width, color=colour)


def _logarithmic(axes: Axes) -> None:
    """Makes the axis of the counts logarithmic: a few findings among thousands stay visible."""
    tallest = axes.get_ylim()[1]
    axes.set_yscale("symlog", linthresh=1)
    ticks = [0, *(10**power for power in range(len(str(int(tallest)))))]
    axes.set_yticks(ticks, [_short(tick) for tick in ticks])
    axes.set_ylim(0, tallest * 1.2)


def _short(count: int) -> str:
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count // size}{letter}"
    return str(count)


def convergence(
    name: str,
    worst: Sequence[float],
    histories: Sequence[Sequence[float]],
    given_up: Sequence[Sequence[float]],
    tolerance: float | None,
) -> str:
    """Relative residuals per iteration: thin lines, a thick one in front, a dashed tolerance.

    Args:
        name: Unique on the page; keeps the SVG's ids apart.
        worst: The largest residual, the initial one first.
        histories: The residuals of each target; the ``MAX_LINES`` with the largest at the end are
            drawn.
        given_up: The largest residuals of earlier solves, which another one replaced; dotted.
        tolerance: Where a target is done.
    """

    def draw(axes: Axes) -> None:
        for earlier in given_up:
            axes.plot(range(len(earlier)), earlier, color=_TEXT, linestyle=":", linewidth=1.2)
        order = np.argsort([history[-1] for history in histories], kind="stable")  # NaN is last
        for history in (histories[row] for row in order[-MAX_LINES:]):
            steps = _thinned(len(history))
            drawn = np.asarray(history)[steps]
            axes.plot(steps, drawn, color=_ACCENT, alpha=0.4, linewidth=0.7)
        axes.plot(range(len(worst)), worst, color=_ACCENT, linewidth=2.0)
        if tolerance:
            axes.axhline(tolerance, color=_DANGER, linestyle="--", linewidth=1.2)
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("iteration")
        axes.set_ylabel("relative residual")

    return _svg(name, "Residuals of the solver per iteration", draw, left=0.2)


def _thinned(count: int) -> npt.NDArray[np.int64]:
    """Indices of at most ``MAX_POINTS`` of so many, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(np.int64))


def _svg(name: str, title: str, draw: Callable[[Axes], None], left: float = 0.15) -> str:
    out = io.StringIO()
    # "default" first: a reader's own matplotlibrc must not change the report.
    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        figure = Figure(figsize=_SIZE)
        figure.subplots_adjust(left=left, right=0.98, bottom=0.19, top=0.97)
        draw(figure.subplots())
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), title)


def _inline(document: str, title: str) -> str:
    """Turns matplotlib's SVG document into an element of the page."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would style the whole page
    svg = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", svg)  # the same in every chart, unused
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    svg = re.sub(r'width="[^"]*pt"|height="[^"]*pt"', "", svg, count=2)
    for stand_in, colour in _CSS.items():
        svg = svg.replace(stand_in, colour)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
