from __future__ import annotations

import base64
import dataclasses
import hashlib
import html.parser
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaaudit.reports import charts, render, views
from metaaudit.reports.thumbnails import LARGEST_SIDE, data_uri
from metaaudit.runs.saved import SIGN, SavedRun
from tests.run_folder import instance_rows, task_rows, write_run

HOSTILE_TASK = "<script>alert(1)</script>"
HOSTILE_INSTANCE = "\"'><img src=x onerror=alert(2)>"


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, css_class: str = "") -> int:
        return sum(
            name == tag and (not css_class or css_class in (attrs.get("class") or "").split())
            for name, attrs in self.elements
        )


def hostile_run(path: Path) -> SavedRun:
    tasks = task_rows()
    tasks[0] = dataclasses.replace(tasks[0], task_id=HOSTILE_TASK)
    instances = [
        dataclasses.replace(row, instance_id=HOSTILE_INSTANCE) for row in instance_rows(tasks)
    ]
    return write_run(path, tasks, instances, warnings=("<b>did not</b> converge",))


def test_everything_from_the_run_is_escaped(tmp_path: Path) -> None:
    page = Page(render(hostile_run(tmp_path / "<i>run"), "html"))
    assert HOSTILE_TASK in page.text
    assert HOSTILE_INSTANCE in page.text
    assert "<b>did not</b> converge" in page.text
    assert page.count("script") == 1
    assert page.count("i") == page.count("span", "bar")  # the bars' own, none from the run's name
    sources = {attrs["src"][:5] for tag, attrs in page.elements if tag == "img" and attrs["src"]}
    assert sources == {"data:"}
    assert not [attrs for _, attrs in page.elements if "onerror" in attrs]


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    source = render(write_run(tmp_path / "run"), "html")
    assert "http:" not in source
    assert "https:" not in source
    assert "@import" not in source
    assert all(url.startswith(("#", '"#')) for url in re.findall(r"url\(([^)]*)", source))
    for tag, attrs in Page(source).elements:
        for name in attrs.keys() & {"src", "href"}:
            assert (attrs[name] or "").startswith(("#", "data:")), (tag, attrs)


def test_the_only_script_that_may_run_is_the_one_of_the_page(tmp_path: Path) -> None:
    source = render(write_run(tmp_path / "run"), "html")
    script = re.search(r"<script>(.*?)</script>", source, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(
        attrs["content"]
        for tag, attrs in Page(source).elements
        if tag == "meta" and "http-equiv" in attrs
    )
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    first = render(write_run(tmp_path / "a" / "run"), "html")
    second = render(write_run(tmp_path / "b" / "run"), "html")
    assert first == second


def test_ids_are_unique(tmp_path: Path) -> None:
    elements = Page(render(write_run(tmp_path / "run"), "html")).elements
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_it_shows_findings_sign_and_thumbnails(tmp_path: Path) -> None:
    page = Page(render(write_run(tmp_path / "run"), "html"))
    assert "2 of 8 tasks harmful, 2 of 64 instances mislabeled (5 evaluation tasks)" in page.text
    assert SIGN in page.text
    assert page.count("span", "pill") == 2
    assert page.count("div", "banner") == 0
    # Two cards, and all 8 instances of the two tasks that have thumbnails.
    assert page.count("img") == 2 + 16
    assert page.count("li", "flagged") == 2
    assert page.count("svg") == 3
    assert "task-0" in page.text
    assert "eval-4" in page.text


def test_warnings_are_shown_once_in_a_banner(tmp_path: Path) -> None:
    page = Page(render(write_run(tmp_path / "run", warnings=("CG did not converge",)), "html"))
    assert page.count("div", "banner") == 1
    assert page.text.count("CG did not converge") == 1


def solver_lines(source: str) -> dict[str, list[str]]:
    """What is drawn in the accent or danger colour of the convergence plot, by kind."""
    figure = source.split("Convergence of the solver")[1].split("</figure>")[0]
    kinds: dict[str, list[str]] = {"thin": [], "thick": [], "tolerance": []}
    for path, look in re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', figure):
        if "stroke: var(--accent)" in look:
            kinds["thin" if "stroke-opacity" in look else "thick"].append(path)
        elif "stroke: var(--danger)" in look and "stroke-dasharray" in look:
            kinds["tolerance"].append(path)
    return kinds


def steps_of(path: str) -> int:
    return path.count("L ")


def test_every_target_has_its_own_line_in_the_convergence_plot(tmp_path: Path) -> None:
    source = render(write_run(tmp_path / "run"), "html")
    lines = solver_lines(source)
    assert sorted(map(steps_of, lines["thin"])) == [1, 3, 3, 3, 3]
    assert len(set(lines["thin"])) == 5
    # The first target is the worst throughout, and the thick line lies on its thin one.
    assert len(lines["thick"]) == 1 and lines["thick"][0] in lines["thin"]
    assert len(lines["tolerance"]) == 1
    caption = "Solver cg, iterations: median 3, maximum 3; largest residual 0.000900."
    assert f"{caption} A thin line for each target" in Page(source).text


def test_only_the_worst_of_many_targets_are_drawn(tmp_path: Path) -> None:
    bad, good = (1.0, 0.5, 0.4), (1.0, 0.1, 0.01, 0.001)
    histories = (good,) * 50 + (bad,) * charts.MAX_LINES + (good,) * 50
    source = render(write_run(tmp_path / "run", residual_histories=histories), "html")
    lines = solver_lines(source)
    assert [steps_of(line) for line in lines["thin"]] == [2] * charts.MAX_LINES
    assert [steps_of(line) for line in lines["thick"]] == [3]
    caption = "iterations: median 3, maximum 3; largest residual 0.400."
    assert f"{caption} A thin line for each of the 60 worst targets" in Page(source).text


def test_long_histories_are_thinned_but_for_the_worst(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = tuple(tuple(10 ** rng.uniform(-3, 0, 1000)) for _ in range(charts.MAX_LINES))
    source = render(write_run(tmp_path / "run", residual_histories=noisy), "html")
    lines = solver_lines(source)
    assert len(lines["thin"]) == charts.MAX_LINES
    assert max(map(steps_of, lines["thin"])) <= charts.MAX_POINTS < steps_of(lines["thick"][0])
    ends = [[line.split()[at] for at in (1, -2)] for line in (*lines["thin"], *lines["thick"])]
    assert len({tuple(end) for end in ends}) == 1  # from the first iteration to the last
    assert len(source) < 1_000_000


def test_a_run_without_the_history_of_each_target_shows_the_worst(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for target in run.manifest["solver"]["targets"]:
        del target["residual_history"]
    source = render(run, "html")
    lines = solver_lines(source)
    assert not lines["thin"]
    assert [steps_of(line) for line in lines["thick"]] == [3]
    assert "The line is the worst target" in Page(source).text
    assert "iterations: median 3, maximum 3; largest residual 0.000900." in Page(source).text


def test_a_solve_that_ran_away_is_drawn_as_far_as_it_went(tmp_path: Path) -> None:
    """In the manifest, what is not finite is null; such targets are the worst."""
    lost, good = (1.0, 10.0, 100.0, None), (1.0, 0.1)
    run = write_run(tmp_path / "run", residual_histories=(good,) * (2 * charts.MAX_LINES))
    solver = run.manifest["solver"]
    solver["targets"][0] |= {"residual_history": list(lost), "residual": None, "iterations": 3}
    solver["residual_history"] = list(lost)
    source = render(run, "html")
    lines = solver_lines(source)
    assert sorted(map(steps_of, lines["thin"]))[-2:] == [1, 2]
    assert [steps_of(line) for line in lines["thick"]] == [2]
    assert "iterations: median 1, maximum 3; largest residual n/a." in Page(source).text


@pytest.mark.parametrize("history", [(0.0,), (1.0, 0.0), (1e-5,)])
def test_targets_that_need_nothing_can_be_drawn(tmp_path: Path, history: tuple[float, ...]) -> None:
    run = write_run(tmp_path / "run", residual_histories=(history, (0.0,)))
    assert Page(render(run, "html")).count("svg") == 3


def test_a_direct_solver_has_no_convergence_plot(tmp_path: Path) -> None:
    page = Page(render(write_run(tmp_path / "run", residual_histories=()), "html"))
    assert page.count("svg") == 2
    assert "no residual history" in page.text


def test_missing_thumbnails_are_no_error(tmp_path: Path) -> None:
    none = Page(render(write_run(tmp_path / "none", thumbnails={}), "html"))
    assert none.count("img") == 0
    assert none.count("span", "missing") == 2 + 2  # each flagged instance, as card and as tile
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    one = Page(render(write_run(tmp_path / "one", thumbnails={(0, 0, 0): pixels}), "html"))
    assert one.count("img") == 2


def test_a_clean_run_says_so(tmp_path: Path) -> None:
    tasks = task_rows(harmful=0)
    run = write_run(tmp_path / "run", tasks, instance_rows(tasks, mislabeled=0))
    page = Page(render(run, "html"))
    assert "0 of 8 tasks harmful" in page.text
    assert "No instance is flagged" in page.text
    assert page.count("div", "good") == 2


def test_the_size_is_bounded(tmp_path: Path) -> None:
    tasks = task_rows(n_tasks=120)
    run = write_run(tmp_path / "run", tasks, instance_rows(tasks, mislabeled=110))
    page = Page(render(run, "html"))
    rows = [attrs for tag, attrs in page.elements if tag == "details" and "data-rank" in attrs]
    assert len(rows) == views.MAX_TASKS == 100
    assert page.count("p", "labels") == views.MAX_CARDS == 100
    assert "100 of 120 shown; tasks.csv has all" in page.text
    assert "100 of 110 flagged instances shown; instances.csv has all" in page.text


def test_scores_that_are_not_finite_are_shown_as_such(tmp_path: Path) -> None:
    tasks = task_rows()
    tasks[-1] = dataclasses.replace(tasks[-1], influence=float("nan"), influence_z=float("nan"))
    page = Page(render(write_run(tmp_path / "run", tasks), "html"))
    assert "n/a" in page.text


@pytest.mark.parametrize("shape", [(200, 100), (200, 100, 3)])
def test_large_images_are_reduced(shape: tuple[int, ...]) -> None:
    encoded = data_uri(np.zeros(shape, dtype=np.uint8)).removeprefix("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (LARGEST_SIDE // 2, 64)


def test_coupled_instances_are_said_to_be_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for fmt in ("html", "md"):
        run.manifest["coupled"] = True
        assert "The instances of a set are coupled" in render(run, fmt)
        run.manifest["coupled"] = False
        assert "instances of a set are coupled" not in render(run, fmt)
