"""What the detection experiment says of labels that were changed on purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from metaaudit import audit, meta_train
from metaaudit.cache import FactorCache
from metaaudit.config import load_config
from metaaudit.config.evaluate import DetectionConfig
from metaaudit.config.mislabel import Signal
from metaaudit.console import Messages
from metaaudit.errors import ConfigError, ModelError
from metaaudit.fidelity import detecting
from metaaudit.fidelity.detecting import Known
from metaaudit.fidelity.experiments import detection
from metaaudit.fidelity.experiments.detection import run
from metaaudit.fidelity.results import Result, Value
from metaaudit.fidelity.retraining import Retrainer
from metaaudit.fidelity.workbench import Workbench
from metaaudit.loading import load_weights, prepare
from metaaudit.problem import Problem
from metaaudit.runs.saved import SavedRun
from metaaudit.training import Planted
from tests.small import Case, digits, write_case

DETECTION = DetectionConfig(kind="detection")
SIGNALS = {*get_args(Signal), "influence"}
CACHE = "factor-cache"
BOTH = "checkpoint=[checkpoint.epoch-010.safetensors, checkpoint.epoch-020.safetensors]"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Tasks with all kinds of noise, and two numbered checkpoints of a learner of them."""
    train, evaluation = digits(24, 4, 3, 6, 6)
    changes = {
        "model.hidden": [32],
        "plant": {"flips": 0.04, "corrupted": 0.125, "permuted": 0.125},
        "training": {"epochs": 20, "batch": 8, "lr": 0.02, "snapshots": 10},
        "mislabel.fdr": 0.25,
    }
    case = write_case(
        tmp_path_factory.mktemp("planted"), changes, train=train, evaluation=evaluation
    )
    meta_train.run(load_config(case.config), Messages(), resume=False, overwrite=False)
    return case


def bench_of(case: Case, *overrides: str) -> Workbench:
    """A workbench of a case, whose tests share a cache; detection retrains nothing."""
    problem = prepare(load_config(case.config, overrides))
    weights = tuple(load_weights(problem, path) for path in problem.config.checkpoints)
    cache = FactorCache(case.folder / CACHE, say=lambda _: None)
    return Workbench(problem, weights, cache, Messages(), Retrainer.__new__(Retrainer))


def planted_in(bench: Workbench) -> Planted:
    assert bench.problem.planted is not None
    return bench.problem.planted


def rows_of(result: Result, name: str) -> list[tuple[Value, ...]]:
    (found,) = (one for one in result.tables if one.name == name)
    assert all(len(row) == len(found.columns) for row in found.rows)
    return found.rows


def by_name(result: Result, name: str) -> dict[Value, tuple[Value, ...]]:
    return {row[0]: row[1:] for row in rows_of(result, name)}


def quality(sought: Any, values: Any) -> Any:
    return pytest.approx(
        (roc_auc_score(sought, values), average_precision_score(sought, values)), abs=1e-6
    )


@pytest.mark.parametrize("overrides", [(), (BOTH,)])
def test_quality_is_that_of_what_a_run_saves(
    case: Case, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one checkpoint and of the mean over two, by scikit-learn."""
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(case.folder / CACHE))
    bench = bench_of(case, *overrides)
    planted, folder = planted_in(bench), case.folder / f"run-{len(overrides)}"
    audit.run(bench.config, folder, Messages())
    saved, result = SavedRun.open(folder), run(bench, DETECTION)
    instances = {(row.task_id, row.set, row.index): row for row in saved.instances}
    ids = planted.clean.task_ids
    each = [instances[ids[row], name, index] for row, name, index in planted.clean.instances()]
    signals = by_name(result, "signals")
    assert set(signals) == SIGNALS
    assert signals["influence"] == quality(planted.wrong, [row.influence for row in each])
    assert signals["combined"] == quality(planted.wrong, [row.mislabel_score for row in each])
    flagged = np.array([row.mislabeled for row in each])
    n_flagged, n_wrong, hits = flagged.sum(), planted.wrong.sum(), (flagged & planted.wrong).sum()
    expected = (n_wrong, n_flagged, hits / n_flagged if n_flagged else None, hits / n_wrong)
    assert by_name(result, "flags")["mislabeled"] == expected
    by_id = {row.task_id: row for row in saved.tasks}
    tasks = [by_id[one] for one in ids]
    columns = {
        "label_noise": [row.label_noise for row in tasks],
        "contradiction": [row.contradiction for row in tasks],
        "influence": [row.influence for row in tasks],
        "loss": [row.outer_loss for row in tasks],
        "grad-norm": [row.grad_norm for row in tasks],
    }
    clean = ~np.isin(np.arange(24), [*planted.flipped, *planted.permuted])
    whole = np.isin(np.arange(24), [*planted.corrupted, *planted.permuted])
    others = {"corrupted": ~whole, "permuted": ~whole, "flipped": clean}
    found = {(row[0], row[3]): row for row in rows_of(result, "tasks")}
    assert len(found) == len(others) * len(columns)
    for kind, rows in planted.by_kind.items():
        sought = np.isin(np.arange(24), rows)
        part = sought | others[kind]
        for signal, values in columns.items():
            row = found[kind, signal]
            assert row[1:3] == (len(rows), others[kind].sum())
            assert row[4:] == quality(sought[part], np.array(values)[part]), (kind, signal)


def test_each_signal_is_that_of_a_run_which_ranks_by_it(case: Case) -> None:
    """With two checkpoints, whose signals without a natural scale are brought to one."""
    bench = bench_of(case, BOTH)
    known = Known.of(bench)
    for signal in ("margin", "own-influence"):
        other = Known.of(bench_of(case, BOTH, f"mislabel.signal={signal}"))
        np.testing.assert_allclose(other.noise.signal, known.labels[signal], rtol=1e-6)


def test_signals_find_what_they_are_for(case: Case) -> None:
    found = by_name(run(bench_of(case), DETECTION), "signals")
    aurocs = [float(values[0] or 0) for values in found.values()]
    assert aurocs == sorted(aurocs, reverse=True)
    assert float(found["loss"][0] or 0) > 0.8


def test_rules(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noisy are tasks with more than ``noisy_share`` of changed labels, of whatever kind."""
    bench = bench_of(case)
    planted, known = planted_in(bench), Known.of(bench)
    share = planted.wrong.reshape(24, 36).mean(axis=1)
    truly = np.flatnonzero(share > 0.1)
    assert set(truly) >= {*planted.corrupted, *planted.permuted}
    q_noisy, q_contradictory = np.ones(24), np.ones(24)
    q_noisy[[truly[0], np.flatnonzero(share == 0)[0]]] = 0.25
    q_contradictory[list(planted.permuted)] = 0.0
    contradictions = replace(known.noise.contradictions, q_value=q_contradictory)
    mislabeled = np.zeros(864, dtype=bool)
    mislabeled[[*np.flatnonzero(planted.wrong)[:3], np.flatnonzero(~planted.wrong)[0]]] = True
    noise = replace(
        known.noise, mislabeled=mislabeled, noisy_q=q_noisy, contradictions=contradictions
    )
    monkeypatch.setattr(detecting.Known, "of", lambda _: replace(known, noise=noise))
    flags = by_name(detection.run(bench, DETECTION), "flags")
    assert flags["mislabeled"] == (167, 4, 0.75, 3 / 167)
    assert flags["noisy"] == (len(truly), 2, 0.5, 1 / len(truly))
    assert flags["contradictory"] == (3, 3, 1.0, 1.0)


def test_nothing_planted(trained_case: Case) -> None:
    with pytest.raises(ConfigError, match=r"plant: changes no label.*--plant KIND:RATE"):
        run(bench_of(trained_case), DETECTION)


def test_every_task_has_flips(case: Case) -> None:
    result = run(bench_of(case, "plant={flips: 0.5}"), DETECTION)
    assert rows_of(result, "tasks") == []
    assert any("no others to tell them from" in note for note in result.notes)
    assert by_name(result, "flags")["contradictory"][0] == 0
    assert by_name(result, "flags")["contradictory"][3] is None


def test_without_layers_there_is_no_self_influence(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Problem) -> None:
        raise ModelError("model", "has a layer that EK-FAC does not cover")

    monkeypatch.setattr(Problem, "layers", refuse)
    result = run(bench_of(case), DETECTION)
    assert set(by_name(result, "signals")) == SIGNALS - {"self-influence"}
    assert any("does not cover" in note for note in result.notes)
    with pytest.raises(ModelError):
        run(bench_of(case, "mislabel.signal=self-influence"), DETECTION)


def test_figure_has_two_bars_for_every_signal(case: Case) -> None:
    bench = bench_of(case)
    result = run(bench, DETECTION)
    (figure,) = result.figures
    rows = rows_of(result, "signals")
    assert [series.x for series in figure.series] == [tuple(row[0] for row in rows)] * 2
    assert [series.y for series in figure.series] == [tuple(row[i] for row in rows) for i in (1, 2)]
    assert figure.levels["average precision by chance"] == planted_in(bench).wrong.mean()
