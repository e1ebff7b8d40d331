"""Scoring in several processes gives what one gives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.small import Case, digits, files, succeeds, write_case

MAIN = "from metaaudit.cli import main; main()"
LOST = """
import os
from metaaudit import keeping, stages

keeping.WORTH_S = 0.0
derivatives = stages.weight_derivatives


def lost(*parts):
    if os.environ["RANK"] == "1":
        os._exit(9)
    return derivatives(*parts)


stages.weight_derivatives = lost
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Case:
    train, evaluation = digits(n_train=7)
    case = write_case(
        tmp_path_factory.mktemp("scale-out") / "case",
        {"compute.task_batch": 2},
        train=train,
        evaluation=evaluation,
    )
    succeeds(case.cli("train"))
    return case


def together(case: Case, run: Path, *args: object, script: str = MAIN) -> list[tuple[int, str]]:
    """Exit code and messages of each of two processes, as ``torchrun`` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, "score", case.config, "--run", run, *map(str, args)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    return [(one.returncode, text) for one, text in zip(processes, said, strict=True)]


def scores(run: Path) -> dict[str, np.ndarray]:
    with h5py.File(run / "scores.h5") as file:
        found: dict[str, np.ndarray] = {}
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("influence.curvature=exact", "influence.damping=1.0"),
        ("influence.curvature=ekfac", "mislabel.signal=self-influence", "mislabel.steps=auto"),
        ("influence.derivative=implicit", "influence.curvature=ggn"),
    ],
    ids=["default", "exact", "ekfac", "implicit"],
)
def test_two_processes_give_the_scores_of_one(
    trained: Case, tmp_path: Path, asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [part for one in asked for part in ("--set", one)]
    succeeds(trained.cli("score", "--run", tmp_path / "one", *settings))
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "other"))
    (code, said), (other, silence) = together(trained, tmp_path / "two", *settings)
    assert (code, other) == (0, 0), said + silence
    assert silence == "" and "gradients: computed in" in said
    expected, found = scores(tmp_path / "one"), scores(tmp_path / "two")
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        if values.dtype.kind == "f":
            scale = np.nanmax(np.abs(values), initial=0.0)
            np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6 * scale)
        else:
            np.testing.assert_array_equal(found[name], values)


@pytest.mark.slow
def test_what_is_cached_is_read_once_and_told_to_all(trained: Case, tmp_path: Path) -> None:
    succeeds(trained.cli("score", "--run", tmp_path / "one"))
    (code, said), (other, _) = together(trained, tmp_path / "two")
    assert (code, other) == (0, 0)
    assert "gradients: reused" in said and "computed in" not in said
    assert files(tmp_path / "one")["scores.h5"] == files(tmp_path / "two")["scores.h5"]


@pytest.mark.slow
def test_a_lost_process_ends_the_others_and_the_run_goes_on(trained: Case, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = time.monotonic()
    (code, said), (lost, _) = together(trained, run, script=LOST + MAIN)
    assert (code, lost) == (3, 9), said
    assert time.monotonic() - started < 120  # at once, not when some wait is over
    last = said.splitlines()[-1]
    assert last.startswith("error: torchrun: another process ended or cannot be reached")
    assert last.endswith("the same command goes on from what is kept")
    assert not run.exists()
    told = succeeds(trained.cli("score", "--run", run)).stderr
    assert "gradients: reused" in told and "instance influence: computed" in told
