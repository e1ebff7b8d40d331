"""What every report says of how the scores came about."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaaudit.reports.headline import notes
from tests.run_folder import write_run


@pytest.mark.parametrize(
    ("high", "method", "said"),
    [(0.01, "task-if", True), (0.5, "task-if", False), (0.01, "loss", False)],
)
def test_influence_along_a_noisy_gradient_is_said_to_be_so(
    tmp_path: Path, high: float, method: str, said: bool
) -> None:
    """Ten tasks with at most ``high`` of a signal each."""
    run = write_run(tmp_path / "run")
    run.manifest["evaluation_gradient"] = {"tasks": 10, "ratio": 0.005, "low": 0.0, "high": high}
    run.manifest["solver"]["method"] = method
    assert (
        any("evaluation tasks is mostly noise: at most 0.1 " in one for one in notes(run)) == said
    )


def test_learned_weights_are_no_influence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.manifest["solver"]["method"] = "mts"
    assert any("a weight that was learned" in note for note in notes(run))
