"""The report as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from metaaudit.findings import WATCHED
from metaaudit.gates import Outcome
from metaaudit.printable import printable
from metaaudit.reports import charts, text
from metaaudit.reports.cards import cards
from metaaudit.reports.comparison import Comparison
from metaaudit.reports.confusion import confusion
from metaaudit.reports.headline import headline, notes, run_name, warnings
from metaaudit.reports.overview import MAX_LISTED, rule_views
from metaaudit.reports.solver import SolveView, solve_view
from metaaudit.reports.task_views import task_table
from metaaudit.reports.views import Places
from metaaudit.runs.saved import SavedRun


def render_html(
    run: SavedRun, outcome: Outcome | None = None, comparison: Comparison | None = None
) -> str:
    """Renders the page. Everything from the run is escaped, and the page may load nothing.

    Args:
        run: A finished run.
        outcome: Of its gates, to be shown with the findings.
        comparison: With another run, to be shown after them.

    Raises:
        RunError: A file of the run is damaged.
    """
    environment, places = _environment(), Places(run, outcome)
    script = environment.get_template("report.js.j2").render()
    return environment.get_template("report.html.j2").render(
        **_said_of(run),
        **_shown_of(places),
        outcome=outcome,
        comparison=comparison,
        script=Markup(script),
        script_hash=_hash(script),
    )


def _said_of(run: SavedRun) -> dict[str, Any]:
    """What stands on the page whatever is flagged."""
    solve = solve_view(run)
    return {
        "name": run_name(run),
        "headline": headline(run),
        "warnings": warnings(run),
        "notes": notes(run),
        "sign": run.findings.sign,
        "findings": run.findings,
        "counts": run.findings.counts,
        "thresholds": run.findings.thresholds,
        "watched": WATCHED,
        "named_classes": bool(run.class_names),
        "n_null": len(run.null_scores),
        "solve": solve,
        "charts": _charts(run, solve),
        "max_lines": charts.MAX_LINES,
        "manifest": run.manifest,
        "config": _config(run.manifest["config"]),
    }


def _shown_of(places: Places) -> dict[str, Any]:
    """What is flagged, with its pictures."""
    parts = {
        "places": places,
        "max_listed": MAX_LISTED,
        "rules": rule_views(places),
        "cards": cards(places),
        "table": task_table(places),
        "confusion": confusion(places.run.items),
    }
    return {**parts, "sheet": places.pictures.sheet()}  # it holds what the parts asked for


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
        "printable": printable,
        "q": _q_value,
        "count": "{:,}".format,
        "without_folder": text.without_folder,
    }
    return environment


def _charts(run: SavedRun, solve: SolveView) -> dict[str, Markup]:
    drawn = {name: charts.histogram(name, scores) for name, scores in _scores(run).items()}
    if solve.worst:
        tolerance: float | None = run.manifest["solver"]["tolerance"]
        drawn["solver"] = charts.convergence(
            "solver", solve.worst, solve.histories, solve.given_up, tolerance
        )
    # Not escaped, so a chart must never hold text from the run.
    return {name: Markup(svg) for name, svg in drawn.items()}


def _scores(run: SavedRun) -> dict[str, charts.Scores]:
    tasks, instances, thresholds = run.tasks, run.instances, run.findings.thresholds
    kinds = [row.kinds.split() for row in tasks]
    return {
        "influence": charts.Scores(
            [row.influence_z for row in tasks],
            [row.harmful for row in tasks],
            "influence, robust z",
            "tasks",
            thresholds.influence_z,
        ),
        "mislabel": charts.Scores(
            [row.mislabel_score for row in instances],
            [row.mislabeled for row in instances],
            "mislabel score",
            "instances",
            thresholds.mislabel_score,
            run.null_scores,
        ),
        "noise": charts.Scores(
            [row.label_noise for row in tasks],
            ["noisy" in of for of in kinds],
            "estimated share of wrong labels",
            "tasks",
        ),
        "outlier": charts.Scores(
            [row.outlier_z for row in tasks],
            ["outlier" in of for of in kinds],
            "loss after adaptation, robust z",
            "tasks",
        ),
    }


def _q_value(value: float | None) -> str:
    """Two decimals, three below 0.1; a dash for a rule that has none."""
    if value is None:
        return "–"
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _config(config: dict[str, Any]) -> str:
    return json.dumps(_without_folders(config), indent=2, sort_keys=True, ensure_ascii=False)


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return text.without_folder(value) if isinstance(value, str) else value


def _hash(script: str) -> str:
    """The source of the one script that the page's content security policy lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
