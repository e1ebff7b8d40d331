"""Finding corrupted tasks, and retraining without those found."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from metaaudit.config.evaluate import CandidateConfig, HarmfulConfig
from metaaudit.errors import ConfigError
from metaaudit.fidelity.experiments.harmful import (
    BEST,
    EXACT,
    NOTHING,
    RANDOM,
    check,
    corrupted,
    run,
    share_found,
)
from metaaudit.fidelity.workbench import Workbench
from tests.fidelity.ablation_cases import bench as bench_of
from tests.fidelity.ablation_cases import trained
from tests.small import Case

PLANT = {"plant.corrupted": 0.25, "plant.permuted": 0.125, "training.epochs": 2}
LOSS = CandidateConfig(name="by loss", influence={"method": "loss"})


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return trained(tmp_path_factory.mktemp("harmful") / "case", PLANT)


@pytest.fixture
def bench(case: Case) -> Workbench:
    return bench_of(case)


def test_the_share_found_is_counted() -> None:
    order = np.array([4, 0, 3, 1, 2])
    found = [share_found(order, (0, 2), share) for share in (0.2, 0.4, 0.8, 0.999)]
    assert found == [0, 0.5, 0.5, 1]


def test_a_random_order_finds_the_share_that_it_checks() -> None:
    rng = np.random.default_rng(0)
    found = [share_found(rng.permutation(20), (0, 3, 7), 0.3) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(0.3, abs=0.02)  # standard error 0.004


@pytest.mark.parametrize("key", ["checked", "retrain"])
def test_a_share_of_less_than_a_task_is_refused(bench: Workbench, key: str) -> None:
    config = HarmfulConfig(kind="harmful", **{"checked": [0.5], "retrain": [0.5], key: [0.5, 0.01]})
    with pytest.raises(ConfigError, match=f"harmful: {key}: 0.01 of 8 tasks is less than one"):
        check(bench.problem, config)


def test_the_experiment(bench: Workbench) -> None:
    config = HarmfulConfig(
        kind="harmful", checked=[0.125, 0.5, 0.75], retrain=[0.125, 0.375], seeds=2
    )
    result = run(bench, config)
    assert result.complete
    found, accuracy = result.tables
    bad = [row for kind, rows in bench.problem.planted.by_kind.items() for row in rows]  # type: ignore[union-attr]
    assert found.columns == (
        "share checked",
        "influence",
        "loss",
        "label noise",
        "contradiction",
        RANDOM,
        BEST,
    )
    assert [row[-2:] for row in found.rows] == [(0.125, 1 / 3), (0.5, 1.0), (0.75, 1.0)]
    ids = bench.problem.train.task_ids
    assert result.details["corrupted"] == [ids[row] for row in sorted(bad)]
    for place, name in enumerate(found.columns[1:5], start=1):
        order = result.details["ranking"][name]
        assert sorted(order) == sorted(ids)
        for row in found.rows:
            first = order[: round(8 * float(row[0] or 0))]
            hits = sum(ids[k] in first for k in bad)
            assert row[place] == pytest.approx(hits / 3)
    by = {(row[0], row[1]): row for row in accuracy.rows}
    names = ("influence", "loss", "label noise", "contradiction", RANDOM)
    shares = {(name, share) for name in names for share in (0.125, 0.375)}
    assert set(by) == {(NOTHING, None), (EXACT, None), *shares}
    assert by[EXACT, None][2:4] == (3, 3.0)
    assert by[NOTHING, None][2:4] == (0, 0.0) and by[NOTHING, None][6] is None
    assert by["loss", 0.375][2] == 3
    for row in accuracy.rows:
        assert row[-1] == 2 and row[5] is not None
        if row[0] != NOTHING:
            gain = 100 * (float(row[4] or 0) - float(by[NOTHING, None][4] or 0))
            assert row[6] == pytest.approx(gain)
    lines, levels = result.figures[1].series, result.figures[1].levels
    assert {one.name for one in lines} == set(names)
    assert set(levels) == {f"without {NOTHING}", f"without {EXACT}"}


def test_retraining_lacks_what_the_ranking_has_first(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def out_of_time(_: Any, requests: Any) -> list[None]:
        asked.extend(requests)
        return [None] * len(requests)

    monkeypatch.setattr(type(bench.retrainer), "run", out_of_time)
    config = HarmfulConfig(
        kind="harmful", retrain=[0.25], seeds=1, candidates=[LOSS], label_noise=False
    )
    result = run(bench, config)
    assert not result.complete
    assert result.tables[0].columns == ("share checked", "by loss", RANDOM, BEST)
    ids, order = bench.problem.train.task_ids, result.details["ranking"]["by loss"]
    (given,) = bench.given(LOSS)
    assert order == [ids[k] for k in np.argsort(-given.gradients.outer_loss)]
    kept = [one.tasks.task_ids for one in asked]
    assert kept[0] == ids
    assert kept[1] == [one for one in ids if one not in result.details["corrupted"]]
    assert kept[2] == [one for one in ids if one not in order[:2]]
    assert len(kept[3]) == 6 and {one.seed for one in asked} == {3000}


def test_when_time_is_up_the_rankings_are_still_reported(bench: Workbench) -> None:
    late = replace(bench, retrainer=replace(bench.retrainer, deadline=time.monotonic()))
    config = HarmfulConfig(kind="harmful", candidates=[LOSS], label_noise=False, retrain=[0.2])
    result = run(late, config)
    assert not result.complete
    assert len(result.tables[0].rows) == len(config.checked)
    assert {row[-1] for row in result.tables[1].rows} == {0}
    assert [one.name for one in result.figures] == ["harmful-found"]


def test_without_corrupted_tasks_there_is_nothing_to_find(bench: Workbench) -> None:
    clean = replace(bench, problem=replace(bench.problem, planted=None))
    with pytest.raises(ConfigError, match=r"plant: corrupts no whole task.*plant\.corrupted"):
        run(clean, HarmfulConfig(kind="harmful"))


def test_single_flips_are_no_corrupted_tasks(bench: Workbench) -> None:
    planted = bench.problem.planted
    assert planted is not None
    flipped = replace(planted, corrupted=(), permuted=())
    with pytest.raises(ConfigError, match="corrupts no whole task"):
        corrupted(replace(bench.problem, planted=flipped))
