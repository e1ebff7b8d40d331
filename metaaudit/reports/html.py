"""The report as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
import json

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from metaaudit.reports import charts, text
from metaaudit.reports.headline import headline, notes, run_name, warnings
from metaaudit.reports.views import SolveView, Views
from metaaudit.runs.saved import SIGN, SavedRun


def render_html(run: SavedRun) -> str:
    """Renders the page. Everything from the run is escaped, and the page may load nothing."""
    environment = _environment()
    views = Views(run)
    solve = views.solve()
    script = environment.get_template("report.js.j2").render()
    return environment.get_template("report.html.j2").render(
        name=run_name(run),
        headline=headline(run),
        warnings=warnings(run),
        notes=notes(run),
        sign=SIGN,
        counts=run.findings["counts"],
        cards=views.cards(),
        tasks=views.tasks(),
        solve=solve,
        charts=_charts(run, solve),
        max_lines=charts.MAX_LINES,
        manifest=run.manifest,
        config=json.dumps(run.manifest["config"], indent=2, sort_keys=True, ensure_ascii=False),
        script=Markup(script),
        script_hash=_hash(script),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("metaaudit.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "signed": text.signed,
        "percent": text.percent,
        "score": text.score,
        "z": text.z_score,
        "printable": text.printable,
    }
    return environment


def _charts(run: SavedRun, solve: SolveView) -> dict[str, Markup]:
    drawn = {
        "influence": charts.histogram(
            "influence",
            [row.influence_z for row in run.tasks],
            [row.harmful for row in run.tasks],
            "influence, robust z",
            "tasks",
        ),
        "mislabel": charts.histogram(
            "mislabel",
            [row.mislabel_score for row in run.instances],
            [row.mislabeled for row in run.instances],
            "mislabel score",
            "instances",
        ),
    }
    if solve.worst:
        tolerance: float | None = run.manifest["solver"]["tolerance"]
        drawn["solver"] = charts.convergence(
            "solver", solve.worst, solve.histories, solve.given_up, tolerance
        )
    # Not escaped, so a chart must never hold text from the run.
    return {name: Markup(svg) for name, svg in drawn.items()}


def _hash(script: str) -> str:
    """The source of the one script that the page's content security policy lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
