"""Plots as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib import rc_context
from PIL import Image

from metaaudit.fidelity.figures import draw
from metaaudit.fidelity.results import Figure, Series

BARS = Figure(
    "bars",
    "Scores",
    "method",
    "LDS",
    (Series("one", ("a", "b"), (0.1, -0.2), (0.05, 0.1)), Series("two", ("b", "c"), (0.3, 0.1))),
    {"noise ceiling": 0.61},
)
LINES = Figure(
    "lines",
    "Accuracy as tasks are removed",
    "removed (share)",
    "accuracy",
    tuple(Series(f"line {i}", (0.0, 0.5), (0.1 * i, 0.2), (0.1, 0.1)) for i in range(8)),
    {"retrained": 0.7, "chance": 0.2},
)


@pytest.mark.parametrize("figure", [BARS, LINES], ids=["bars", "lines"])
def test_a_figure_has_all_its_names(figure: Figure, tmp_path: Path) -> None:
    draw(figure, tmp_path)
    root = ElementTree.parse(tmp_path / f"{figure.name}.svg").getroot()
    texts = {text.strip() for element in root.iter() if (text := element.text)}
    expected = {figure.title, figure.x_label, figure.y_label, *figure.levels}
    expected |= {series.name for series in figure.series}
    expected |= {x for series in figure.series for x in series.x if isinstance(x, str)}
    assert expected <= texts
    with Image.open(tmp_path / f"{figure.name}.png") as image:
        assert min(image.size) > 200


def test_dollars_and_control_characters_are_drawn_as_they_are(tmp_path: Path) -> None:
    odd = "$\\alpha_{$ \x01"
    figure = Figure("odd", odd, odd, odd, (Series(odd, (odd, "b"), (0.1, 0.2)),), {odd: 0.3})
    draw(figure, tmp_path)
    root = ElementTree.parse(tmp_path / "odd.svg").getroot()
    texts = [text.strip() for element in root.iter() if (text := element.text)]
    # Title, two axes, a bar, and the legend's series and level.
    assert texts.count(r"$\alpha_{$ \x01") == 6


def test_nothing_is_drawn_without_a_series(tmp_path: Path) -> None:
    draw(replace(BARS, series=()), tmp_path)
    assert not [*tmp_path.iterdir()]


def test_nobodys_own_style_changes_the_bytes(tmp_path: Path) -> None:
    for folder, size in (("one", 9), ("two", 30)):
        (tmp_path / folder).mkdir()
        with rc_context({"font.size": size, "axes.facecolor": "red", "text.usetex": False}):
            draw(LINES, tmp_path / folder)
    for name in ("lines.svg", "lines.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
