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

from metaaudit.findings import Finding, Place, RuleName
from metaaudit.gates import Outcome, Status
from metaaudit.reports import cards, charts, confusion, task_views, views
from metaaudit.reports.comparison import Comparison
from metaaudit.reports.html import render_html
from metaaudit.reports.thumbnails import COLUMNS, MAX_BYTES, Pictures
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.sign import SIGN
from metaaudit.runs.tables import ItemRow
from tests.reports.curated import curated_run, digit_images
from tests.reports.outcomes import outcome_of
from tests.run_folder import instance_rows, item_rows, task_rows, write_run

HOSTILE_TASK = "<script>alert(1)</script>"
HOSTILE_INSTANCE = "\"'><img src=x onerror=alert(2)>"
HOSTILE_CLASS = "</style><i onclick=alert(3)>\u202e"


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

    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.elements if "id" in attrs]


ENDS = {"task": "</tbody>", "item": '<li class="card"|</ol>'}


def part(source: str, name: str) -> str:
    """The source of one section, or of one task or card."""
    kind = name.split("-")[0]
    tag = {"task": "tbody", "item": "li"}.get(kind, "section")
    found = re.search(rf'<{tag} [^>]*?id="{name}".*', source, re.DOTALL)
    assert found is not None, name
    return re.split(ENDS.get(kind, "<section "), found[0][1:])[0]


def text_of(source: str, name: str) -> str:
    """Its text, with a space where an element begins."""
    return " ".join(Page(("<" + part(source, name)).replace("<", " <")).text.split())


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    return curated_run(tmp_path_factory.mktemp("curated") / "run", digit_images(), 40)


@pytest.fixture(scope="module")
def curated_page(curated: SavedRun) -> str:
    return render_html(curated)


def hostile_run(path: Path) -> SavedRun:
    tasks = task_rows()
    tasks[0] = dataclasses.replace(tasks[0], task_id=HOSTILE_TASK)
    instances = [
        dataclasses.replace(row, instance_id=HOSTILE_INSTANCE) for row in instance_rows(tasks)
    ]
    return write_run(path, tasks, instances, warnings=("<b>did not</b> converge",))


def hostile_comparison(run: SavedRun) -> Comparison:
    settings = (("<u>key", "<u>here", "<u>there"),)
    return Comparison(
        "<u>other", run.findings.findings, (), (), None, 8, 0, 0, settings, True, True
    )


def test_everything_from_the_run_is_escaped(tmp_path: Path) -> None:
    run = hostile_run(tmp_path / "<u>run")
    run.class_names.update({HOSTILE_TASK: [HOSTILE_CLASS, HOSTILE_CLASS]})
    run.items[0] = dataclasses.replace(
        run.items[0], label=HOSTILE_CLASS, suggested_label=HOSTILE_CLASS
    )
    outcome = outcome_of(run, statuses={("harmful", HOSTILE_TASK): "suppressed"}, reason="<u>why")
    outcome = dataclasses.replace(outcome, stale=("<u>stale",), notes=("<u>note",))
    page = Page(render_html(run, outcome, hostile_comparison(run)))
    for text in (HOSTILE_TASK, HOSTILE_INSTANCE, "<b>did not</b> converge", "<u>other"):
        assert text in page.text
    for text in ("<u>run", "<u>key", "<u>here", "<u>there", "<u>why", "<u>stale", "<u>note"):
        assert text in page.text
    assert HOSTILE_CLASS.replace("\u202e", "\\u202e") in page.text
    assert page.count("script") == page.count("style") == 1
    assert page.count("u") == page.count("img") == 0
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


@pytest.mark.parametrize("everything", [False, True], ids=["run", "gate and comparison"])
def test_the_page_loads_nothing(tmp_path: Path, everything: bool) -> None:
    run = write_run(tmp_path / "run")
    more = (outcome_of(run), hostile_comparison(run)) if everything else ()
    source = render_html(run, *more)
    assert "http:" not in source
    assert "https:" not in source
    assert "@import" not in source
    assert all(url.startswith(("#", '"#', "data:")) for url in re.findall(r"url\(([^)]*)", source))
    for tag, attrs in Page(source).elements:
        for name in attrs.keys() & {"src", "href"}:
            assert (attrs[name] or "").startswith(("#", "data:")), (tag, attrs)


def test_the_only_script_that_may_run_is_the_one_of_the_page(tmp_path: Path) -> None:
    source = render_html(write_run(tmp_path / "run"))
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
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    first = render_html(write_run(tmp_path / "a" / "run"))
    assert first == render_html(write_run(tmp_path / "b" / "run"))


def test_no_absolute_path_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.manifest["checkpoints"][0]["path"] = "/home/someone/model.safetensors"
    run.manifest["config"]["tasks"] = {"roots": ["/home/someone/data", "C:\\someone\\data"]}
    source = render_html(run)
    assert "someone" not in source
    assert ".../model.safetensors" in source
    assert str(tmp_path) not in source


def test_ids_are_unique_and_every_link_leads_somewhere(curated: SavedRun) -> None:
    page = Page(render_html(curated, outcome_of(curated), hostile_comparison(curated)))
    assert len(page.ids()) == len(set(page.ids()))
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert len(links) > 50
    assert {str(link)[1:] for link in links} <= set(page.ids())


def test_it_shows_findings_sign_and_estimate(tmp_path: Path) -> None:
    source = render_html(write_run(tmp_path / "run"))
    page = Page(source)
    assert "2 of 8 tasks harmful" in page.text
    assert SIGN in page.text
    assert "3 wrong labels estimated at least among 64 occurrences" in page.text
    counts = re.findall(r'class="what">(\w+)</span>\s*<span class="value">(\d+) <small>', source)
    assert counts == [
        *[("harmful", "2"), ("mislabeled", "2"), ("noisy", "2")],
        *[("contradictory", "1"), ("duplicate", "2"), ("outlier", "1")],
    ]
    hrefs = [attrs["href"] for tag, attrs in page.elements if tag == "a" and page_card(attrs)]
    assert hrefs[:3] == ["#rule-harmful", "#instances", "#rule-noisy"]
    assert page.count("div", "banner") == 0
    assert page.count("svg") == 5


def page_card(attrs: dict[str, str | None]) -> bool:
    return "rule" in (attrs.get("class") or "").split()


def test_warnings_are_shown_once_in_a_banner(tmp_path: Path) -> None:
    page = Page(render_html(write_run(tmp_path / "run", warnings=("CG did not converge",))))
    assert page.count("div", "warn") == 1
    assert page.text.count("CG did not converge") == 1


def test_a_row_tells_what_is_wrong_with_its_task(curated: SavedRun, curated_page: str) -> None:
    noisy = next(row for row in curated.tasks if row.kinds == "noisy")
    told = text_of(curated_page, f"task-{noisy.rank}")
    (finding,) = [one for one in curated.findings.of("noisy") if one.subject == noisy.task_id]
    assert finding.message in told
    assert finding.evidence[0] in told
    assert finding.fingerprint in told
    assert f"wrong labels {noisy.label_noise:.0%} q 0.003" in told
    assert "bootstrap interval" in told
    assert "Hurts" in told and "Helps" in told


def test_evidence_is_told_once_a_task(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    told = text_of(render_html(run), "task-1")
    assert "task-0 is harmful" in told and "task-0 is noisy" in told
    assert told.count(run.findings.of("noisy")[0].evidence[0]) == 1


def test_tasks_with_the_same_content_name_each_other(curated: SavedRun, curated_page: str) -> None:
    first, second = [row for row in curated.tasks if row.kinds == "duplicate"][:2]
    assert f'href="#task-{second.rank}"' in part(curated_page, f"task-{first.rank}")
    assert f'href="#task-{first.rank}"' not in part(curated_page, f"task-{first.rank}")
    assert f'href="#task-{first.rank}"' in part(curated_page, f"task-{second.rank}")


def test_the_contact_sheet_has_a_row_a_class(curated: SavedRun, curated_page: str) -> None:
    source = part(curated_page, f"task-{curated.tasks[0].rank}")
    names = re.findall(r'<div class="class"><span class="name">(\w+)', source)
    assert names == curated.class_names[curated.tasks[0].task_id] * 2
    assert len(re.findall('<i class="t ', source)) == 50


def test_a_flagged_instance_is_framed_and_linked_with_its_card(
    curated: SavedRun, curated_page: str
) -> None:
    row = next(row for row in curated.instances if row.mislabeled)
    task = next(task for task in curated.tasks if task.task_id == row.task_id)
    (number,) = [
        number
        for number, one in enumerate(curated.findings.of("mislabeled"), start=1)
        if one.subject == row.instance_id
    ]
    source = part(curated_page, f"task-{task.rank}")
    framed = re.findall(r'<li class="f" title="([^"]*)"><a href="#(item-\d+)">', source)
    assert (row.instance_id, f"item-{number}") in [
        (one[0].split(" · ")[0], one[1]) for one in framed
    ]
    assert f"→ {curated.class_names[row.task_id][row.suggested_label]}" in source
    assert f'href="#task-{task.rank}"' in part(curated_page, f"item-{number}")


def test_an_item_has_one_card_wherever_it_occurs(curated: SavedRun, curated_page: str) -> None:
    flagged = [row for row in curated.items if row.mislabeled]
    assert sum(row.occurrences for row in flagged) > len(flagged) > 3
    assert [one for one in Page(curated_page).ids() if one.startswith("item-")] == [
        f"item-{number}" for number in range(1, len(flagged) + 1)
    ]
    for number, row in enumerate(flagged, start=1):
        told = text_of(curated_page, f"item-{number}")
        assert f"given {row.label} → suggested {row.suggested_label}" in told
        assert f"{row.flagged} of {row.occurrences} place" in told
        links = re.findall('href="#task-', part(curated_page, f"item-{number}"))
        assert len(links) == min(row.occurrences, cards.MAX_PLACES)


def test_places_where_an_item_is_flagged_come_first(tmp_path: Path) -> None:
    tasks = task_rows()
    run = write_run(tmp_path / "run", tasks, instance_rows(tasks, mislabeled=1))
    (finding,) = run.findings.of("mislabeled")
    elsewhere = Place(task_id="task-5", set="query", index=0)
    moved = finding.model_copy(update={"places": (elsewhere, *finding.places)})
    findings = run.findings.model_copy(update={"findings": (moved,)})
    told = text_of(render_html(dataclasses.replace(run, findings=findings)), "item-1")
    assert "task-0 support 0 task-5 query 0" in told


def test_a_large_contact_sheet_keeps_what_is_flagged(
    curated: SavedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {task.task_id for task in curated.tasks[:20]}
    row = next(row for row in curated.instances if row.mislabeled and row.task_id in whole)
    rank = next(task.rank for task in curated.tasks if task.task_id == row.task_id)
    monkeypatch.setattr(task_views, "MAX_TILES", 1)
    source = part(render_html(curated), f"task-{rank}")
    assert '<li class="f"' in source
    assert "1 of 25 shown; instances.csv has all" in source


def sheet_of(source: str) -> Image.Image:
    (encoded,) = re.findall(r"url\(data:image/\w+;base64,([^)]*)\)", source)
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def cell_of(sheet: Image.Image, source: str, width: int, height: int) -> list[np.ndarray]:
    places = re.findall(r"--x:(\d+);--y:(\d+)", source)
    pixels = np.asarray(sheet)
    return [
        pixels[int(y) * height : (int(y) + 1) * height, int(x) * width : (int(x) + 1) * width]
        for x, y in places
    ]


def test_each_picture_is_in_the_sheet_once_and_where_it_is_said_to_be(
    curated: SavedRun, curated_page: str
) -> None:
    sheet = sheet_of(curated_page)
    different = {pixels.tobytes() for pixels in curated.thumbnails.values()}
    assert sheet.size[0] == COLUMNS * 32
    assert sheet.size[1] == -(-len(different) // COLUMNS) * 32
    task = curated.tasks[0].task_id
    drawn = cell_of(sheet, part(curated_page, "task-1"), 32, 32)[:25]
    for index, pixels in enumerate(drawn):
        np.testing.assert_array_equal(pixels, curated.thumbnails[task, "support", index])


def test_an_occurrence_without_a_picture_shows_that_of_another_one(tmp_path: Path) -> None:
    tasks = task_rows()
    rows = [
        dataclasses.replace(row, instance_id="shared")
        if row.mislabeled and row.set == "support"
        else row
        for row in instance_rows(tasks)
    ]
    pixels = {(0, 0, 0): np.full((8, 8), 77, dtype=np.uint8)}
    source = render_html(write_run(tmp_path / "run", tasks, rows, thumbnails=pixels))
    for task in ("task-1", "task-2"):
        assert cell_of(sheet_of(source), part(source, task), 8, 8)[0].mean() == 77


def test_missing_thumbnails_are_no_error(tmp_path: Path) -> None:
    source = render_html(write_run(tmp_path / "none", thumbnails={}))
    assert "url(data:image" not in source
    assert Page(source).count("i", "none") == 2 + 2  # each flagged instance, as card and as tile
    assert "The run kept no pictures of this task; instances.csv has its 8" in source


def photographs(n: int, side: int) -> dict[tuple[str, str, int], np.ndarray]:
    """Noise, which nothing compresses."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return {("task", "support", row): pixels[row] for row in range(n)}


@pytest.mark.parametrize(
    ("n", "side", "kind", "width"),
    [(10, 28, "png", 28), (10, 200, "png", 64), (600, 64, "jpeg", 48), (2_000, 64, "jpeg", 24)],
)
def test_the_sheet_keeps_to_its_size(n: int, side: int, kind: str, width: int) -> None:
    pictures = Pictures(photos := photographs(n, side))
    assert all(pictures.cell(key) for key in photos)
    sheet = pictures.sheet()
    assert sheet is not None
    assert sheet.uri.startswith(f"data:image/{kind};")
    assert sheet.width == width
    assert len(sheet.uri) < MAX_BYTES * 4 / 3 + 100


def test_pictures_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaaudit.reports.thumbnails.MAX_PICTURES", 2)
    photos = photographs(3, 8)
    pictures = Pictures(photos)
    cells = [pictures.cell(key) for key in [*photos, *photos]]
    assert cells[:2] == cells[3:5] != [None, None]
    assert cells[2] is cells[5] is None


@pytest.mark.parametrize("shape", [(200, 100), (200, 100, 3)])
def test_large_images_are_reduced(shape: tuple[int, ...]) -> None:
    pictures = Pictures({("task", "support", 0): np.zeros(shape, dtype=np.uint8)})
    assert pictures.cell(("task", "support", 0)) is not None
    sheet = pictures.sheet()
    assert sheet is not None
    encoded = base64.b64decode(sheet.uri.split(",")[1])
    assert Image.open(io.BytesIO(encoded)).size == (COLUMNS * 32, 64)
    assert sheet.ratio == 0.5


STATUSES: dict[tuple[RuleName, str], Status] = {
    ("harmful", "task-0"): "known",
    ("noisy", "task-0"): "suppressed",
    ("noisy", "task-1"): "suppressed",
}


def test_the_gate_says_what_is_new_known_and_suppressed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    outcome = outcome_of(run, statuses=STATUSES, reason="seen by hand")
    told = text_of(source := render_html(run, outcome), "findings")
    assert "The gate failed: harmful, mislabeled, contradictory, duplicate, outlier" in told
    for line in (
        "harmful 1 0 1 0 0 failed",
        "noisy 0 0 0 2 0 passed",
        "duplicate 2 0 0 0 0 failed",
    ):
        assert line in told
    assert "seen by hand" in told
    assert "noisy suppressed" in text_of(source, "task-1")
    assert "Suppressed: seen by hand" in text_of(source, "task-1")


def test_a_status_is_told_but_for_what_is_only_nearly_flagged(curated: SavedRun) -> None:
    near = next(one for one in curated.findings.of("harmful") if not one.flagged)
    far = curated.findings.of("harmful")[0]
    statuses: dict[tuple[RuleName, str], Status] = {("harmful", far.subject): "borderline"}
    source = render_html(curated, outcome_of(curated, statuses=statuses))
    ranks = {row.task_id: row.rank for row in curated.tasks}
    assert f"harmful borderline {far.message}" in text_of(source, f"task-{ranks[far.subject]}")
    told = text_of(source, f"task-{ranks[near.subject]}")
    assert f"harmful {near.message} q" in told
    assert "borderline, not flagged" in told


def test_a_gate_that_passes_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    told = text_of(render_html(run, outcome_of(run, ["harmful"], limit=2)), "findings")
    assert "The gate passed" in told
    assert "harmful 2 2 0 0 0 passed" in told
    assert "passed 2 new (≤ 2)" in told
    assert "failed" not in told


def test_without_an_outcome_there_is_no_gate(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for outcome in (None, Outcome(())):
        source = render_html(run, outcome)
        assert 'class="status' not in source
    assert 'id="task-new"' not in render_html(run)


def test_what_changed_is_told_and_linked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    harmful = run.findings.of("harmful")
    gone = harmful[0].model_copy(update={"subject": "gone"})
    comparison = Comparison(
        *("last-week", harmful[:1], (gone,), harmful[1:2], 0.874, 7, 1, 2),
        *((("influence.damping", "auto", "0.1"),), False, True),
    )
    source = render_html(run, None, comparison)
    told = text_of(source, "changes")
    assert told.startswith(
        "What changed since last-week 7 tasks in both, 1 only here, 2 only there"
    )
    assert "0.87 (Spearman). The checkpoints differ." in told
    assert "The data differ" not in told
    assert "1 appeared harmful task-0" in told
    assert "1 vanished harmful gone" in told
    assert "influence.damping auto 0.1" in told
    assert 'href="#task-1"' in part(source, "changes")
    assert 'id="changes"' not in render_html(run)


def test_the_outline_is_scaled_to_as_many_as_there_are() -> None:
    null = np.linspace(0.0, 0.9, 30)
    drawn = [
        charts.histogram(
            "mislabel", charts.Scores([0.1] * 90 + [0.9] * 10, [False] * 100, "x", "n", None, some)
        )
        for some in (null, np.tile(null, 5))
    ]
    assert drawn[0] == drawn[1]


def named(label: str, suggested: str, flagged: bool = True) -> ItemRow:
    row = item_rows(instance_rows(task_rows(1), 1))[0]
    return dataclasses.replace(row, label=label, suggested_label=suggested, mislabeled=flagged)


def test_the_confusion_counts_flagged_items_by_class() -> None:
    items = [
        *[named("cat", "dog")] * 3,
        named("dog", "cat"),
        named("10", "9"),
        named("cat", "cat", flagged=False),
        named("cat", "dog", flagged=False),
    ]
    found = confusion.confusion(items)
    assert found is not None
    assert found.classes == ["9", "10", "cat", "dog"]
    counts = {row.name: (row.counts, row.flagged, row.items) for row in found.rows}
    assert counts == {
        "9": ([0, 0, 0, 0], 0, 0),
        "10": ([1, 0, 0, 0], 1, 1),
        "cat": ([0, 0, 0, 3], 3, 5),
        "dog": ([0, 0, 1, 0], 1, 1),
    }
    assert [row.share for row in found.rows] == [0.0, 1.0, 0.6, 1.0]
    assert (found.largest, found.outside, found.n_classes) == (3, 0, 4)
    assert found.pairs == [("cat", "dog", 3), ("10", "9", 1), ("dog", "cat", 1)]


def test_the_confusion_shows_the_most_frequent_classes() -> None:
    items = [named(f"class {k}", "common") for k in range(50) for _ in range(k + 1)]
    found = confusion.confusion(items)
    assert found is not None
    assert len(found.classes) == confusion.MAX_CLASSES
    assert "common" in found.classes and "class 49" in found.classes
    assert found.n_classes == 51
    assert found.outside == sum(range(1, 32))
    assert found.pairs[0] == ("class 49", "common", 50)
    assert len(found.pairs) == confusion.MAX_PAIRS
    assert confusion.confusion([named("a", "b", flagged=False)]) is None


def lines_of(source: str, title: str, colour: str) -> list[str]:
    """What is drawn as a line of that colour in a chart."""
    figure = source.split(f"<h3>{title}</h3>")[1].split("</figure>")[0]
    found = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', figure)
    return [path for path, look in found if f"stroke: var(--{colour})" in look]


def test_thresholds_are_drawn_where_flags_begin(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    source = render_html(run)
    for title in ("Influence of the tasks", "Mislabel score of the instances"):
        assert len(lines_of(source, title, "danger")) == 1
    assert "Flags begin at the dashed line, 11.5." in Page(source).text
    tasks = task_rows(harmful=0)
    clean = write_run(tmp_path / "clean", tasks, instance_rows(tasks, mislabeled=0))
    source = render_html(clean)
    assert not lines_of(source, "Influence of the tasks", "danger")
    assert "Nothing is flagged, so there is no threshold to draw." in Page(source).text


def test_trusted_labels_are_outlined_behind_the_scores(tmp_path: Path) -> None:
    source = render_html(write_run(tmp_path / "run"))
    assert len(lines_of(source, "Mislabel score of the instances", "text")) == 1
    assert not lines_of(source, "Influence of the tasks", "text")
    assert "the 40 instances of the evaluation tasks" in Page(source).text


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
    source = render_html(write_run(tmp_path / "run"))
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
    source = render_html(write_run(tmp_path / "run", residual_histories=histories))
    lines = solver_lines(source)
    assert [steps_of(line) for line in lines["thin"]] == [2] * charts.MAX_LINES
    assert [steps_of(line) for line in lines["thick"]] == [3]
    caption = "iterations: median 3, maximum 3; largest residual 0.400."
    assert f"{caption} A thin line for each of the 60 worst targets" in Page(source).text


def test_long_histories_are_thinned_but_for_the_worst(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = tuple(tuple(10 ** rng.uniform(-3, 0, 1000)) for _ in range(charts.MAX_LINES))
    source = render_html(write_run(tmp_path / "run", residual_histories=noisy))
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
    source = render_html(run)
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
    source = render_html(run)
    lines = solver_lines(source)
    assert sorted(map(steps_of, lines["thin"]))[-2:] == [1, 2]
    assert [steps_of(line) for line in lines["thick"]] == [2]
    assert "iterations: median 1, maximum 3; largest residual n/a." in Page(source).text


@pytest.mark.parametrize("history", [(0.0,), (1.0, 0.0), (1e-5,)])
def test_targets_that_need_nothing_can_be_drawn(tmp_path: Path, history: tuple[float, ...]) -> None:
    run = write_run(tmp_path / "run", residual_histories=(history, (0.0,)))
    assert Page(render_html(run)).count("svg") == 5


def test_a_direct_solver_has_no_convergence_plot(tmp_path: Path) -> None:
    page = Page(render_html(write_run(tmp_path / "run", residual_histories=())))
    assert page.count("svg") == 4
    assert "no residual history" in page.text


def test_a_clean_run_says_so(tmp_path: Path) -> None:
    tasks = [dataclasses.replace(row, kinds="") for row in task_rows(harmful=0)]
    run = write_run(tmp_path / "run", tasks, instance_rows(tasks, mislabeled=0))
    page = Page(render_html(run))
    assert "0 of 8 tasks harmful" in page.text
    assert "No item is flagged. items.csv ranks them all." in page.text
    assert page.count("a", "good") == 6
    assert page.count("table", "matrix") == 0


def test_what_is_shown_is_bounded_and_no_flagged_task_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MAX_TASKS", 20)
    monkeypatch.setattr(views, "MAX_CARDS", 5)
    monkeypatch.setattr(cards, "MAX_CARDS", 5)
    tasks = task_rows(n_tasks=60)
    tasks[50] = dataclasses.replace(tasks[50], kinds="outlier")
    run = write_run(tmp_path / "run", tasks, instance_rows(tasks, mislabeled=10))
    page = Page(render_html(run))
    shown = [one for one in page.ids() if re.fullmatch(r"task-\d+", one)]
    assert len(shown) == 20
    assert "task-51" in shown and "task-20" not in shown
    assert "20 of 60 shown, all flagged ones among them; tasks.csv has all" in page.text
    assert "5 of 10 flagged items shown; items.csv has all" in page.text
    links = {attrs["href"] for tag, attrs in page.elements if tag == "a"}
    assert {str(link)[1:] for link in links} <= set(page.ids())


def borderline(instance_id: str) -> Finding:
    return Finding(
        rule="mislabeled",
        fingerprint="f" * 64,
        subject=instance_id,
        flagged=False,
        q_value=0.2,
        score=0.5,
        message="nearly",
        label="0",
        suggested_label="1",
        places=(Place(task_id="task-0", set="query", index=1),),
    )


def test_borderline_items_are_listed_and_have_no_card(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    findings = (*run.findings.findings, borderline("image-0-query-1"))
    more = run.findings.model_copy(update={"findings": findings})
    source = render_html(dataclasses.replace(run, findings=more))
    told = text_of(source, "instances")
    assert "1 borderline · q-value up to 0.25, not flagged" in told
    assert "All 2 flagged items are shown" in told
    assert "item-3" not in Page(source).ids()


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"influence": float("nan"), "influence_z": float("nan")}, "n/a n/a"),
        ({"influence_low": None, "influence_high": None}, "Influence on the evaluation loss"),
        ({"influence_spread": 0.25}, "standard deviation over checkpoints 0.250"),
    ],
)
def test_scores_that_are_not_finite_or_not_there(
    tmp_path: Path, change: dict[str, float | None], shown: str
) -> None:
    tasks = task_rows()
    tasks[-1] = dataclasses.replace(tasks[-1], **change)
    source = render_html(write_run(tmp_path / "run", tasks))
    assert shown in text_of(source, "task-8")
    assert ("bootstrap interval" in text_of(source, "task-8")) == ("influence_low" not in change)


def test_intervals_share_one_axis(tmp_path: Path) -> None:
    tasks = task_rows()
    source = render_html(write_run(tmp_path / "run", tasks))
    (zero,) = re.findall(r"--zero: ([\d.]+)%", source)
    ends = [row.influence_low for row in tasks] + [row.influence_high for row in tasks]
    low, high = min(filter(None, ends)), max(filter(None, ends))
    assert float(zero) == pytest.approx(100 * -low / (high - low), abs=0.06)
    found = re.search(r"--l:([\d.]+)%;--m:([\d.]+)%;--h:([\d.]+)%", part(source, "task-1"))
    assert found is not None
    wanted = [tasks[0].influence_low, tasks[0].influence, tasks[0].influence_high]
    for drawn, value in zip(found.groups(), wanted, strict=True):
        assert value is not None
        assert float(drawn) == pytest.approx(100 * (value - low) / (high - low), abs=0.06)


@pytest.mark.parametrize("coupled", [True, False])
def test_coupled_instances_are_said_to_be_so(tmp_path: Path, coupled: bool) -> None:
    run = write_run(tmp_path / "run")
    run.manifest["coupled"] = coupled
    assert ("The instances of a set are coupled" in render_html(run)) == coupled
