"""What every report says first."""

from __future__ import annotations

from metaaudit.gates import Outcome
from metaaudit.runs.saved import SavedRun
from metaaudit.runs.sign import BLIND

COUPLED = (
    "The instances of a set are coupled: the network normalises by the statistics of the batch at "
    "hand, so that an instance acts on the others of its set through them too. Its influence is "
    "that of its loss; its place in the statistics stays."
)


LABELLED = (
    "The tasks are batches of a labelled data set, for a classifier that does not adapt: a query "
    "is a batch, and a loss after adaptation that of the classifier itself. It was trained on the "
    "labels that it judges here, so that wrong labels which it has learned by heart are not found."
)


def run_name(run: SavedRun) -> str:
    """The name of the run's folder."""
    return run.path.resolve().name


def headline(run: SavedRun) -> str:
    """The findings in one line."""
    counts = run.findings.counts
    kinds = [
        f"{counts.flagged[rule]:,} {rule}"
        for rule in ("noisy", "contradictory", "duplicate", "outlier")
        if counts.flagged[rule]
    ]
    return (
        f"{counts.flagged['harmful']:,} of {counts.tasks:,} tasks harmful"
        f"{''.join(f', {kind}' for kind in kinds)}; "
        f"{counts.flagged['mislabeled']:,} of {counts.items:,} instances mislabeled "
        f"({counts.eval_tasks:,} evaluation tasks)"
    )


def warnings(run: SavedRun) -> list[str]:
    """The run's warnings, each once."""
    return list(dict.fromkeys([*run.manifest["warnings"], *run.findings.warnings]))


def notes(run: SavedRun) -> list[str]:
    """What a reader has to know of how the scores came about."""
    method = run.manifest["solver"]["method"]
    coupled = [COUPLED] if run.manifest.get("coupled") else []
    told = [] if method == "task-if" else [scored_by(method)]
    labelled = [LABELLED] if run.labelled else []
    return [*told, *labelled, *_of_noise(run), *coupled]


def _of_noise(run: SavedRun) -> list[str]:
    """Whether influence rests on a direction that is mostly noise."""
    found = run.manifest.get("evaluation_gradient")
    if not found or run.manifest["solver"]["method"] in BLIND:
        return []
    most = found["tasks"] * found["high"]
    if most >= 1:
        return []
    return [
        f"The mean gradient of the {found['tasks']:,} evaluation tasks is mostly noise: at most "
        f"{most:.2g} times as much of it is signal (95%). Influence on their mean loss follows "
        "that direction; it would be surer with more of them (metaaudit diagnose)."
    ]


def scored_by(method: str) -> str:
    """What the column influence holds, by another method than the usual one."""
    if method in BLIND:
        return (
            f"The influence here is no influence but {BLIND[method]} (method {method}), which "
            "looks at no evaluation task: it does not say what harms."
        )
    if method == "mts":
        return (
            "The influence here is how far a weight that was learned for the evaluation tasks is "
            "below the mean weight (method mts), not a change of their loss."
        )
    return f"The influence here is by the method {method}, not by the total Hessian."


def gate_line(outcome: Outcome) -> str:
    """What the gate says, in one line."""
    if not outcome.rules:
        return "Gate: none is configured"
    counts = ", ".join(
        f"{len(rule.new):,} new {rule.rule} (limit {rule.limit:,})"
        for rule in outcome.rules
        if rule.failed or not outcome.failed
    )
    return f"Gate {'failed' if outcome.failed else 'passed'}: {counts}"
