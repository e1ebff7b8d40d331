"""Candidates that no experiment can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small import write_case


@pytest.mark.parametrize(
    ("experiment", "part"),
    [
        ("{kind: harmful, candidates: [{name: random order}]}", "candidate 'random order' of"),
        ("{kind: editing, candidates: [{name: retrained}]}", "candidate 'retrained' of"),
        (
            "{kind: lds, candidates: [{name: x, checkpoints: 2}]}",
            "candidate x: checkpoints: got 2; expected at most 1",
        ),
    ],
)
def test_a_candidate_that_cannot_be_is_refused_before_any_work(
    tmp_path: Path, experiment: str, part: str
) -> None:
    case = write_case(tmp_path)
    told = ("--run", tmp_path / "found", "--set", f"evaluate.experiments=[{experiment}]")
    done = case.cli("evaluate", *told)
    assert done.exit_code == 2
    assert part in done.error
    assert not case.checkpoint.exists()
