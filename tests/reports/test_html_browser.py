"""The HTML report in a browser, from disk, with no network: what only a browser can tell."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from metaaudit.findings import RuleName
from metaaudit.reports.html import render_html
from metaaudit.runs.saved import SavedRun
from tests.reports.curated import curated_run, digit_images
from tests.reports.outcomes import outcome_of

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing"),
]
N_TASKS = 40
GATED: tuple[RuleName, ...] = ("harmful", "noisy")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

Browser = webdriver.Chrome


def started(folder: Path, *, scripts: bool = True) -> Browser:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    if not scripts:
        options.add_experimental_option(
            "prefs", {"profile.managed_default_content_settings.javascript": 2}
        )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Browser(options=options, service=Service(str(DRIVER)))
    browser.set_window_size(1200, 900)
    # Scrolling is smooth otherwise, and a test is impatient.
    emulate(browser, "prefers-reduced-motion", "reduce")
    return browser


def emulate(browser: Browser, feature: str, value: str) -> None:
    features = [{"name": feature, "value": value}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = started(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    folder = tmp_path_factory.mktemp("curated") / "run"
    return curated_run(folder, digit_images(), N_TASKS, wrong=0.03)


@pytest.fixture(scope="module")
def page(run: SavedRun) -> str:
    """The address of the page."""
    path = run.path / "report.html"
    path.write_text(render_html(run, outcome_of(run, GATED)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser: Browser, page: str) -> Browser:
    browser.get("about:blank")
    browser.get(page)
    return browser


def open_at(browser: Browser, page: str, name: str) -> None:
    browser.get("about:blank")  # else only the hash changes
    browser.get(f"{page}#{name}")


def shown(browser: Browser) -> list[str]:
    """Ids of the rows that are visible, in their order."""
    rows = "[...document.querySelectorAll('#task-table tbody')].filter(row => !row.hidden)"
    return list(browser.execute_script(f"return {rows}.map(row => row.id)"))


def choose(browser: Browser, rule: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f"#task-filters [data-rule='{rule}']").click()


def in_view(browser: Browser, element_id: str) -> bool:
    script = (
        "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
        "return box.top >= 0 && box.top < innerHeight && box.height > 0"
    )
    return bool(browser.execute_script(script, element_id))


def settle(browser: Browser) -> None:
    """Waits for two frames."""
    frames = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
    browser.execute_async_script(frames)


def test_nothing_is_wrong_and_nothing_is_fetched(opened: Browser, page: str) -> None:
    for kind in ("browser", "performance"):
        opened.get_log(kind)  # what was there before
    open_at(opened, page, "task-1")
    opened.find_element(By.ID, "task-text").send_keys("train")
    assert opened.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    addresses = [
        one["params"]["request"]["url"].split("#")[0]
        for one in sent
        if one["method"] == "Network.requestWillBeSent"
    ]
    assert [one for one in addresses if not one.startswith(("data:", "about:"))] == [page]


@pytest.mark.parametrize("rule", ["harmful", "noisy", "contradictory", "duplicate", "outlier"])
def test_a_rule_filters(opened: Browser, run: SavedRun, rule: RuleName) -> None:
    choose(opened, rule)
    wanted = [one.subject for one in run.findings.of(rule) if one.flagged]
    ranks = [f"task-{row.rank}" for row in run.tasks if row.task_id in wanted]
    assert shown(opened) == ranks != []
    count = opened.find_element(By.ID, "task-count").text
    assert count == f"{len(ranks)} of {N_TASKS} tasks"
    pressed = opened.find_elements(By.CSS_SELECTOR, "[aria-pressed='true']")
    assert [one.text for one in pressed] == [rule]
    choose(opened, "")
    assert len(shown(opened)) == N_TASKS


def test_filters_narrow_each_other(opened: Browser, run: SavedRun) -> None:
    flagged = {row.task_id for row in run.instances if row.mislabeled} | {
        one.subject for one in run.findings.findings if one.flagged
    }
    opened.find_element(By.ID, "task-flagged").click()
    ranks = [f"task-{row.rank}" for row in run.tasks if row.task_id in flagged]
    assert shown(opened) == ranks
    opened.find_element(By.ID, "task-new").click()
    news = {one.subject for one in run.findings.findings if one.flagged and one.rule in GATED}
    assert shown(opened) == [f"task-{row.rank}" for row in run.tasks if row.task_id in news]
    opened.find_element(By.ID, "task-text").send_keys("no such task")
    assert shown(opened) == []
    assert opened.find_element(By.ID, "no-tasks").is_displayed()


def test_text_finds_ids_in_any_case(opened: Browser, run: SavedRun) -> None:
    opened.find_element(By.ID, "task-text").send_keys("TRAIN-" + run.tasks[7].task_id[15:24])
    assert shown(opened) == ["task-8"]


@pytest.mark.parametrize(
    ("key", "column", "first"),
    [
        ("influence", "influence", "descending"),
        ("z", "influence_z", "descending"),
        ("q", "harmful_q", "ascending"),
        ("noise", "label_noise", "descending"),
    ],
)
def test_a_column_sorts(opened: Browser, run: SavedRun, key: str, column: str, first: str) -> None:
    button = opened.find_element(By.CSS_SELECTOR, f"thead [data-key='{key}']")
    other = "ascending" if first == "descending" else "descending"
    for order in (first, other):
        button.click()
        header = button.find_element(By.XPATH, "..")
        assert header.get_attribute("aria-sort") == order
        sorted_ones = opened.find_elements(By.CSS_SELECTOR, "th[aria-sort$='ending']")
        assert sorted_ones == [header]
        values = [getattr(run.tasks[int(one[5:]) - 1], column) for one in shown(opened)]
        gaps = [b - a for a, b in pairwise(values)]
        # It sorts by what is shown, and that is rounded.
        tolerance = max(0.01 * max(map(abs, values)), 0.0101 if key == "noise" else 0.0)
        assert all(gap >= -tolerance if order == "ascending" else gap <= tolerance for gap in gaps)
        assert values[0] != values[-1]


def test_ids_sort_as_people_count(opened: Browser, run: SavedRun) -> None:
    opened.find_element(By.CSS_SELECTOR, "thead [data-key='id']").click()
    ids = [run.tasks[int(one[5:]) - 1].task_id for one in shown(opened)]
    assert ids == sorted(ids, key=lambda one: [int(k) for k in re.findall(r"\d+", one)])


def test_a_deep_link_opens_its_row_even_if_it_is_filtered_out(opened: Browser, page: str) -> None:
    open_at(opened, page, f"task-{N_TASKS}")
    settle(opened)
    row = opened.find_element(By.ID, f"task-{N_TASKS}")
    assert row.find_element(By.CSS_SELECTOR, ".detail").is_displayed()
    assert in_view(opened, f"task-{N_TASKS}")
    assert not opened.find_element(By.ID, "task-2").find_elements(By.CSS_SELECTOR, "[open]")
    opened.find_element(By.ID, "task-text").send_keys("no such task")
    opened.execute_script("location.hash = 'task-3'")
    settle(opened)
    assert "task-3" in shown(opened)
    assert in_view(opened, "task-3")


def test_a_card_of_a_rule_leads_to_the_filtered_tasks(opened: Browser) -> None:
    opened.find_element(By.CSS_SELECTOR, "a.rule[href='#rule-noisy']").click()
    settle(opened)
    rows = opened.find_elements(By.CSS_SELECTOR, "#task-table tbody:not([hidden])")
    assert rows and all("noisy" in str(row.get_attribute("data-rules")) for row in rows)
    assert in_view(opened, "tasks")


def test_a_card_leads_to_its_task_and_back(opened: Browser) -> None:
    link = opened.find_element(By.CSS_SELECTOR, "#item-1 .in a")
    name = str(link.get_attribute("href")).split("#")[1]
    link.click()
    settle(opened)
    row = opened.find_element(By.ID, name)
    assert in_view(opened, name)
    back = row.find_element(By.CSS_SELECTOR, ".why a[href^='#item-'], .f a[href='#item-1']")
    back.click()
    settle(opened)
    assert in_view(opened, str(back.get_attribute("href")).split("#")[1])


def test_a_deep_link_opens_the_cards_that_are_folded_away(opened: Browser, page: str) -> None:
    last = len(opened.find_elements(By.CSS_SELECTOR, "#instances li.card"))
    assert last > 12
    open_at(opened, page, f"item-{last}")
    settle(opened)
    assert in_view(opened, f"item-{last}")
    opened.execute_script("document.getElementById('more-cards').open = false")
    again = f"document.querySelector('#tasks a[href=\"#item-{last}\"]').click()"
    opened.execute_script(again)
    settle(opened)
    assert in_view(opened, f"item-{last}")


def test_a_pair_of_classes_filters_the_cards(opened: Browser) -> None:
    button = opened.find_element(By.CSS_SELECTOR, ".matrix button")
    given, suggested = button.get_attribute("data-given"), button.get_attribute("data-suggested")
    wanted = int(button.text)
    button.click()
    visible = [
        one
        for one in opened.find_elements(By.CSS_SELECTOR, "#instances li.card")
        if not one.get_attribute("hidden")
    ]
    assert len(visible) == wanted
    for one in visible:
        assert one.find_element(By.CLASS_NAME, "given").text == given
        assert one.find_element(By.CLASS_NAME, "suggested").text == suggested
    opened.find_element(By.ID, "card-pair").click()
    assert opened.find_element(By.ID, "card-count").text.endswith(" items")
    assert " of " not in opened.find_element(By.ID, "card-count").text


def test_cards_sort_and_find(opened: Browser, run: SavedRun) -> None:
    Select(opened.find_element(By.ID, "card-order")).select_by_value("occurrences")
    cards = opened.find_elements(By.CSS_SELECTOR, "#instances li.card")
    counts = [int(str(one.get_attribute("data-occurrences"))) for one in cards]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    name = run.findings.of("mislabeled")[13].subject
    opened.find_element(By.ID, "card-text").send_keys(name)
    assert opened.find_element(By.ID, "item-14").is_displayed()
    assert opened.find_element(By.ID, "card-count").text.startswith("1 of ")


def test_the_keyboard_opens_a_row_and_shows_where_it_is(opened: Browser) -> None:
    opened.find_element(By.ID, "task-text").send_keys(Keys.TAB)
    focus: Any = None
    for _ in range(12):
        focus = opened.switch_to.active_element
        if focus.tag_name == "summary":
            break
        focus.send_keys(Keys.TAB)
    assert focus.tag_name == "summary"
    outline = opened.execute_script("return getComputedStyle(arguments[0]).outline", focus)
    assert "2px" in outline and "none" not in outline
    detail = opened.find_element(By.CSS_SELECTOR, "#task-1 .detail")
    assert not detail.is_displayed()
    focus.send_keys(Keys.ENTER)
    assert detail.is_displayed()
    focus.send_keys(Keys.ENTER)
    assert not detail.is_displayed()


NAMELESS = """
return [...document.querySelectorAll("button, input, select, a, summary")]
  .filter((one) => !one.hidden && !one.textContent.trim() && !(one.labels || []).length)
  .filter((one) => !one.matches("[aria-label]") && !one.querySelector("[aria-label]"))
  .map((one) => one.outerHTML);
"""


def test_controls_have_names(opened: Browser) -> None:
    assert opened.execute_script(NAMELESS) == []


CONTRAST = r"""
const numbers = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
const over = (top, below) => below.map((v, k) => v + (top[3] ?? 1) * (top[k] - v));
const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (rgb) => [0.2126, 0.7152, 0.0722]
  .reduce((sum, part, k) => sum + part * linear(rgb[k] / 255), 0);
const page = numbers(getComputedStyle(document.body).backgroundColor);
function colour(text) {
  const found = numbers(text.replace("color(srgb", ""));
  return text.startsWith("color(srgb") ? found.map((v, k) => (k < 3 ? 255 * v : v)) : found;
}
function behind(element) {
  if (!element) return page;
  const own = colour(getComputedStyle(element).backgroundColor);
  return (own[3] ?? 1) === 1 ? own : over(own, behind(element.parentElement));
}
const speaks = (one) => [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
const bad = {};
for (const one of document.querySelectorAll("body *")) {
  if (one.closest("svg, script") || one.disabled || !speaks(one)) continue;
  const below = behind(one), text = over(colour(getComputedStyle(one).color), below);
  const [a, b] = [light(text), light(below)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) bad[one.tagName + "." + one.className] = ratio.toFixed(2);
}
return bad;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser: Browser, page: str, scheme: str) -> None:
    emulate(browser, "prefers-color-scheme", scheme)
    open_at(browser, page, "task-1")
    browser.execute_script(
        "for (const one of document.querySelectorAll('details')) one.open = true"
    )
    browser.execute_async_script("setTimeout(arguments[0], 1800)")  # the row's highlight fades
    body = browser.find_element(By.TAG_NAME, "body")
    numbers = [int(v) for v in re.findall(r"\d+", body.value_of_css_property("background-color"))]
    assert (sum(numbers[:3]) < 3 * 64) == (scheme == "dark")
    assert browser.execute_script(CONTRAST) == {}
    emulate(browser, "prefers-reduced-motion", "reduce")


@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_is_never_wider_than_the_window(opened: Browser, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    try:
        script = "return document.documentElement.scrollWidth"
        assert 0 < opened.execute_script(script) <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_scripts_all_is_there(page: str, tmp_path: Path) -> None:
    browser = started(tmp_path / "profile", scripts=False)
    try:
        browser.get(page)
        assert not browser.find_element(By.ID, "task-filters").is_displayed()
        rows = browser.find_elements(By.CSS_SELECTOR, "#task-table tbody")
        assert len(rows) == N_TASKS and rows[-1].is_displayed()
        rows[0].find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
        assert rows[0].find_element(By.CLASS_NAME, "detail").is_displayed()
        assert browser.find_element(By.ID, "item-1").is_displayed()
    finally:
        browser.quit()


def test_a_thousand_tasks_load(browser: Browser, tmp_path: Path) -> None:
    run = curated_run(tmp_path / "run", digit_images(), 1_000, wrong=0.03)
    path = tmp_path / "report.html"
    path.write_text(render_html(run), encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    browser.get(path.as_uri())
    assert len(shown(browser)) == 1_000
    open_at(browser, path.as_uri(), "task-999")
    settle(browser)
    assert in_view(browser, "task-999")
