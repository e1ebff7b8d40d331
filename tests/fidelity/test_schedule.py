"""Retrainings within a time, and in the processes of `torchrun`."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from metaaudit.cache import Arrays
from metaaudit.errors import ConfigError
from metaaudit.fidelity.budget import Budget
from metaaudit.fidelity.schedule import Schedule, turns
from metaaudit.ranks import is_main, rank, world_size
from tests.fidelity.odd_runs import LASTS, schedule

ROOT = Path(__file__).parents[2]

RANKED = """
import sys
from pathlib import Path
from tests.fidelity.odd_runs import OddRun, schedule

began = []
arrays = OddRun.arrays
OddRun.arrays = lambda self, work: began.append(work.training.epochs) or arrays(self, work)
found = schedule(Path(sys.argv[1]), [int(text) for text in sys.argv[2:]]).run(2)
print(began, [float(one["losses"][0]) for one in found], sep="|")
"""


def values(found: Sequence[Arrays | None]) -> list[float | None]:
    return [None if one is None else float(one["losses"][0]) for one in found]


def said(plan: Schedule) -> str:
    assert isinstance(plan.messages.console.file, io.StringIO)
    return plan.messages.console.file.getvalue()


def test_time_that_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert Budget(None).allows(1e9) and Budget(None, [1.0]).patience([1]) is None
    unknown = Budget(100.0)
    assert unknown.allows(1e9) and unknown.expected(5) == 0 and unknown.patience([5]) is None
    known = Budget(110.0, paces=[9.0, 1.0, 2.0], earlier=[500.0])
    assert known.expected(4) == 8
    assert known.allows(5) and not known.allows(5.1)
    assert known.patience([1, 4]) == 18
    assert Budget(110.0, earlier=[2.0]).expected(4) == 8
    now = 110.5
    assert not known.allows(0.0) and not unknown.allows(0.0)
    now = 118.5
    assert known.patience([4]) == 0


def test_what_would_end_too_late_is_not_begun(tmp_path: Path) -> None:
    plan = schedule(tmp_path, [2, 90000, 1], time.monotonic() + 60)
    assert values(plan.run(1)) == [2, None, 1]
    assert "no time for 1 of 3" in said(plan)
    # Another run knows it from the first, and begins nothing that takes so long.
    assert values(schedule(tmp_path, [90000, 2, 1], time.monotonic() + 60).run(2)) == [None, 2, 1]


class Overdue(Budget):
    """Lets everything begin though the time is up."""

    def allows(self, size: float) -> bool:
        return True


def test_what_ends_much_too_late_is_given_up(tmp_path: Path) -> None:
    plan = schedule(tmp_path, [1, LASTS])
    plan.budget = Overdue(time.monotonic())
    started = time.monotonic()
    # By the pace of the first, the last would take less than 7 s; it takes 600 s.
    assert values(plan.run(2)) == [1, None]
    assert time.monotonic() - started < 120
    assert "no time for 1 of 2; what is done is kept" in said(plan)
    assert not list(tmp_path.glob(".*"))


def python(code: str, *args: object, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_processes_of_torchrun_divide_the_work(tmp_path: Path) -> None:
    epochs = [11, 12, 13, 14, 15, 16, 17]
    both = [
        python(RANKED, tmp_path, *epochs, RANK=str(own), WORLD_SIZE="2", LOCAL_RANK=str(own))
        for own in range(2)
    ]
    began = []
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        mine, found = (eval(text) for text in out.strip().split("|"))
        assert found == epochs
        began.append(mine)
    assert sorted(began[0] + began[1]) == epochs  # each once


def test_one_process_of_torchrun_does_what_the_others_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (rank(), world_size(), is_main()) == (1, 3, False)
    # Its own first; those of others from their ends, which they come to last.
    assert turns([0, 1, 2, 4, 5, 7]) == [1, 4, 7, 5, 2, 0]
    assert values(schedule(tmp_path, [1, 2, 3, 4]).run(2)) == [1, 2, 3, 4]
    monkeypatch.setenv("RANK", "0")
    assert is_main()
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(ConfigError, match=r"RANK: is 'one'; expected a number"):
        rank()
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(ConfigError, match="RANK: is 3; expected less than WORLD_SIZE, 3"):
        is_main()


@pytest.mark.parametrize("size", ["", "0", "1"])
def test_a_rank_without_others_means_nothing(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", size)
    assert (rank(), world_size(), is_main()) == (0, 1, True)
