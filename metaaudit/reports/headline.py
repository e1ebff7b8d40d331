"""What every report says first."""

from __future__ import annotations

from metaaudit.runs.saved import SavedRun

COUPLED = (
    "The instances of a set are coupled: the network normalises by the statistics of the batch at "
    "hand, so that an instance acts on the others of its set through them too. Its influence is "
    "that of its loss; its place in the statistics stays."
)


def run_name(run: SavedRun) -> str:
    """The name of the run's folder."""
    return run.path.resolve().name


def headline(run: SavedRun) -> str:
    """The findings in one line."""
    counts = run.findings["counts"]
    return (
        f"{counts['harmful_tasks']:,} of {counts['tasks']:,} tasks harmful, "
        f"{counts['mislabeled_instances']:,} of {counts['instances']:,} instances mislabeled "
        f"({run.manifest['coverage']['eval_tasks']:,} evaluation tasks)"
    )


def warnings(run: SavedRun) -> list[str]:
    """The run's warnings, each once."""
    return list(dict.fromkeys([*run.manifest["warnings"], *run.findings["warnings"]]))


def notes(run: SavedRun) -> list[str]:
    """What a reader has to know of how the network makes its predictions."""
    return [COUPLED] if run.manifest.get("coupled") else []
