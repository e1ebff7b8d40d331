"""Size of the HTML report, seconds to render it and to load it in chromium, by kind of pictures.

python tests/benchmarks/html_report.py [--tasks 1000] [--wrong 0.01] [--keep DIR]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from metaaudit.reports.html import render_html
from tests.reports.curated import Images, curated_run, digit_images, scene_images

PHOTOGRAPHS = 20_000
KINDS = ("digits", "28", "32", "64")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
TIMES = """
const [one] = performance.getEntriesByType("navigation");
return [one.domContentLoadedEventEnd, one.loadEventEnd, document.querySelectorAll("*").length];
"""


def images(kind: str) -> Images:
    """Digits, or colour photographs of so many pixels a side."""
    return digit_images() if kind == "digits" else scene_images(PHOTOGRAPHS, int(kind))


def loaded(page: Path, profile: Path) -> str:
    """Milliseconds until chromium has the page ready, and the number of its elements."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        return "not loaded: chromium or chromedriver is missing"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, *QUIET, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.get(page.as_uri())
        ready, done, elements = browser.execute_script(TIMES)
    finally:
        browser.quit()
    return f"ready after {ready:.0f} ms, loaded after {done:.0f} ms, {elements:,} elements"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--wrong", type=float, default=0.01, help="share of wrong labels")
    parser.add_argument("--keep", type=Path, help="where to leave the pages")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for kind in KINDS:
            folder = Path(temporary) / kind
            run = curated_run(folder / "run", images(kind), args.tasks, wrong=args.wrong)
            started = time.perf_counter()
            source = render_html(run)
            seconds = time.perf_counter() - started
            page = (args.keep or folder) / f"{kind}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(source, encoding="utf-8")
            print(
                f"{kind}: {args.tasks:,} tasks, {len(run.instances):,} instances, "
                f"{page.stat().st_size / 1e6:.2f} MB, rendered in {seconds:.1f} s; "
                f"{loaded(page, folder / 'profile')}",
                flush=True,
            )


if __name__ == "__main__":
    main()
