"""Edits against their formulas, and the experiment that sets them beside retraining."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaaudit.bilevel import total_gradients
from metaaudit.config.evaluate import CandidateConfig, EditingConfig
from metaaudit.errors import ConfigError, TaskSetError
from metaaudit.fidelity import edits
from metaaudit.fidelity.comparison import COLUMNS, Comparison, Outcome
from metaaudit.fidelity.edits import edit
from metaaudit.fidelity.experiments.editing import RETRAINED, UNEDITED, run
from metaaudit.fidelity.results import Result
from metaaudit.fidelity.retraining import Performance
from metaaudit.fidelity.without import Removable
from metaaudit.fidelity.workbench import Workbench
from metaaudit.influence import Removal
from metaaudit.methods import METHODS, MethodScores
from metaaudit.methods.partial import partial
from metaaudit.models import Layout
from tests.fidelity.ablation_cases import bench as bench_of
from tests.fidelity.ablation_cases import trained
from tests.small import WAYS, Case

DROPS = ("tasks", "training-instances", "validation-instances")
WAYS_TO_SOLVE: dict[str, dict[str, Any]] = {
    "sampled-fisher": {"method": "task-if"},
    "task-fisher": {"method": "task-if", "curvature": "task-fisher"},
    "ggn": {"method": "task-if", "curvature": "ggn", "damping": 10.0, "tolerance": 1e-10},
    "ekfac": {"method": "task-if", "curvature": "ekfac"},
    "direct-if": {"method": "direct-if", "damping": 30.0, "tolerance": 1e-10},
    "ekfac-if": {"method": "ekfac-if"},
}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return trained(tmp_path_factory.mktemp("editing") / "case")


@pytest.fixture
def bench(case: Case) -> Workbench:
    return bench_of(case)


def changed(bench: Workbench, candidate: CandidateConfig, removal: Removal) -> torch.Tensor:
    """What an edit adds to the parameters, flat."""
    before = bench.weights[0].params
    layout = Layout.of(before)
    return layout.flatten(edit(bench, candidate, removal).params) - layout.flatten(before)


def drawn(bench: Workbench, drop: Any, fraction: float = 0.3) -> Removal:
    removable = Removable(bench.problem.train, drop)
    return removable.at_random(fraction, np.random.default_rng(0)).removal


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("name", WAYS_TO_SOLVE)
def test_an_edit_moves_the_loss_by_minus_the_influence_of_what_goes(
    bench: Workbench, name: str, drop: Any
) -> None:
    asked = {**WAYS_TO_SOLVE[name], "targets": "mean"}
    candidate, removal = CandidateConfig(name=name, influence=asked), drawn(bench, drop)
    (given,) = bench.given(candidate, by_instance=True)
    scores = METHODS[asked["method"]](given)
    by_weight = scores.task_influence[:, 0] if drop == "tasks" else scores.instance_influence
    gone = removal.tasks if removal.instances is None else removal.instances
    (target,) = (partial(given) if name.endswith("-if") else given).targets
    slope = float(target @ changed(bench, candidate, removal))
    assert slope == pytest.approx(-by_weight[gone].sum(), rel=1e-6)


def test_direct_if_solves_with_the_mean_hessian_at_the_adapted_parameters(
    bench: Workbench,
) -> None:
    candidate = CandidateConfig(name="d", influence=WAYS_TO_SOLVE["direct-if"])
    (given,) = bench.given(candidate)
    problem, params = bench.problem, bench.weights[0].params
    layout = Layout.of(params)
    gradients, hessians = [], []
    for batch in given.train.batches():
        theta = layout.flatten(given.train.adapted(batch))
        for flat, *task in zip(theta, *batch.data[2:], strict=True):

            def loss(flat: torch.Tensor, x: Any = task[0], y: Any = task[1]) -> torch.Tensor:
                return problem.objective.losses(layout.unflatten(flat, params), x, y).mean()

            gradients.append(torch.func.grad(loss)(flat))
            hessians.append(torch.func.hessian(loss)(flat))
    shift = problem.config.training.weight_decay + 30.0
    dense = torch.stack(hessians).mean(0) + shift * torch.eye(layout.size, dtype=torch.float64)
    removal = drawn(bench, "tasks")
    expected = torch.linalg.solve(dense, torch.stack(gradients)[removal.rows].sum(0)) / 8
    torch.testing.assert_close(changed(bench, candidate, removal), expected, rtol=1e-6, atol=1e-9)


ASCENT = CandidateConfig(name="gradient-ascent", influence={"method": "gradient-ascent"})


def test_gradient_ascent_climbs_the_mean_loss_of_what_goes(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "ASCENT_STEPS", 1)
    removal = Removal(np.isin(np.arange(8), (1, 5)))
    problem = bench.problem
    part = problem.unrolled(bench.weights[0].params, problem.train.select([1, 5]))
    mean = torch.from_numpy(total_gradients(part).gradients.mean(axis=0))
    expected = problem.config.training.lr * mean
    torch.testing.assert_close(changed(bench, ASCENT, removal), expected)
    owners = [(row, name) for row, name, _ in problem.train.instances()]
    queries = np.array([row in (1, 5) and name == "query" for row, name in owners])
    by_instance = changed(bench, ASCENT, replace(removal, instances=queries))
    torch.testing.assert_close(by_instance, expected)


def test_gradient_ascent_takes_several_steps(bench: Workbench) -> None:
    removal, before = drawn(bench, "tasks"), bench.weights[0].params
    gone = bench.problem.train.select(removal.rows)
    after = edit(bench, ASCENT, removal).params
    losses = [
        total_gradients(bench.problem.unrolled(params, gone)).outer_loss.mean()
        for params in (before, after)
    ]
    assert losses[1] > losses[0]


def test_an_edit_starts_from_an_empty_cache_and_leaves_the_other_alone(bench: Workbench) -> None:
    candidate = CandidateConfig(name="t", influence=WAYS_TO_SOLVE["ekfac"])
    removal = drawn(bench, "tasks")
    first, second = (edit(bench, candidate, removal) for _ in range(2))
    assert min(first.seconds, second.seconds) > 0
    assert not bench.cache.uses and not bench.cache.folder.exists()
    assert all(torch.equal(first.params[name], p) for name, p in second.params.items())


def test_what_iterates_cannot_edit_by_single_instances(case: Case, bench: Workbench) -> None:
    implicit = {"derivative": "implicit", "inner": {"inverse": "cg"}}
    candidate = CandidateConfig(name="mine", influence=implicit)
    with pytest.raises(ConfigError, match="mine: has an inner inverse by cg"):
        edit(bench, candidate, drawn(bench, "training-instances"))
    assert edit(bench, candidate, drawn(bench, "tasks")).seconds > 0


def test_what_goes_from_the_edit_is_what_retraining_lacks(bench: Workbench) -> None:
    train = bench.problem.train
    for drop in DROPS:
        removable = Removable(train, drop)  # type: ignore[arg-type]
        without = removable.at_random(0.4, np.random.default_rng(1))
        ids = without.task_set.task_ids
        if drop == "tasks":
            gone = [train.task_ids[row] for row in without.removal.rows]
            assert len(gone) == 3
            assert sorted([*ids, *gone]) == sorted(train.task_ids)
            continue
        marked = without.removal.instances
        assert marked is not None and ids == train.task_ids
        kept = [
            int(train.tasks[row].rows(name)[index])
            for (row, name, index), goes in zip(train.instances(), marked, strict=True)
            if not goes
        ]
        rest = without.task_set
        assert kept == [
            int(rest.tasks[row].rows(name)[index]) for row, name, index in rest.instances()
        ]
        other = "query" if drop == "training-instances" else "support"
        names = np.array([name for _, name, _ in train.instances()])
        assert not marked[names == other].any()
        assert marked.sum() == round(0.4 * (names != other).sum())
        assert all(set(task.support_y) == {0, 1, 2} for task in rest.tasks)
        changes = {row for (row, *_), goes in zip(train.instances(), marked, strict=True) if goes}
        assert without.removal.rows == sorted(changes)


def test_the_most_harmful_go_first_and_the_last_of_a_class_stays(bench: Workbench) -> None:
    train = bench.problem.train
    tasks = np.array([[0.0, 0.0], [1, 3], [5, -9], [1, 1], [0, 0], [0, 1], [0, 0], [0, 0]])
    places = list(train.instances())
    instances = np.array([100.0 * (row == 2 and name == "support") for row, name, _ in places])
    scores = MethodScores(tasks, instances, {})
    by_task = Removable(train, "tasks").most_harmful(0.25, scores)
    assert by_task.removal.rows == [1, 3]
    marked = Removable(train, "training-instances").most_harmful(0.1, scores).removal.instances
    assert marked is not None
    gone = [places[i] for i in np.flatnonzero(marked)]
    assert [row for row, _, _ in gone] == [0, 0, 2, 2, 2]  # 3 ways x 2 shots: one of each class


def outcome(flat: list[float], losses: list[float], accuracy: float, seconds: float) -> Outcome:
    performance = Performance(np.array(losses), np.full(len(losses), accuracy))
    return Outcome({"w": torch.tensor(flat)}, performance, seconds)


def test_the_comparison_in_numbers() -> None:
    original = outcome([0, 0], [1, 1, 1], 0.5, 0)
    retrained = outcome([3, 4], [2, 3, 4], 0.75, 8)
    here = outcome([3, 1], [1.5, 2, 2.5], 0.625, 2)
    found = Comparison.of(here, retrained, original)
    assert found.distance == pytest.approx(0.6) and found.correlation == pytest.approx(1)
    assert replace(found, distance=0, correlation=0) == Comparison(0.625, 2, 2, -12.5, 0.25, 0, 0)
    unedited = Comparison.of(original, retrained, original)
    assert (unedited.distance, unedited.correlation) == (1.0, None)
    assert Comparison.of(here, None, original).points is None
    assert Comparison.of(here, retrained, original, same_data=False).distance is None


def cells(result: Result, table: int = 0) -> dict[str, dict[str, Any]]:
    """The rows of a table by method."""
    found = result.tables[table]
    assert found.columns == COLUMNS
    return {str(values[0]): dict(zip(COLUMNS, values, strict=True)) for values in found.rows}


CHEAP = [
    CandidateConfig(name="ours", influence=WAYS_TO_SOLVE["task-fisher"]),
    CandidateConfig(name="trace", influence={"method": "tracin"}),
]


def test_the_experiment_with_all_candidates(bench: Workbench) -> None:
    result = run(bench, EditingConfig(kind="editing", fractions=[0.125, 0.25], repeats=1))
    assert result.complete
    assert [table.name for table in result.tables] == ["editing-tasks-12.5", "editing-tasks-25"]
    distance = COLUMNS[8]
    for number, figure in enumerate(result.figures):
        rows = cells(result, number)
        assert set(rows) == {
            RETRAINED,
            UNEDITED,
            "task-if sampled-fisher",
            "task-if task-fisher",
            "task-if ekfac",
            "direct-if",
            "ekfac-if",
            "gradient-ascent",
            "trak selects, retrained",
            "tracin selects, retrained",
        }
        assert rows[UNEDITED][distance] == 1 and rows[UNEDITED]["time (s)"] == 0
        assert rows["task-if task-fisher"][distance] not in (0, 1)
        assert rows["trak selects, retrained"][distance] is None
        assert rows["trak selects, retrained"]["time (s)"] > 0
        assert figure.levels == {RETRAINED: rows[RETRAINED]["accuracy"]}
        assert figure.series[0].x == tuple(list(rows)[1:])


def test_repeats_have_an_error_and_retraining_agrees_with_itself(bench: Workbench) -> None:
    result = run(bench, EditingConfig(kind="editing", repeats=2, candidates=CHEAP))
    rows = cells(result)
    row = rows[RETRAINED]
    assert row[COLUMNS[3]] == row[COLUMNS[8]] == 0
    assert row[COLUMNS[9]] == pytest.approx(1)
    assert row["share of retraining's time"] == 1
    assert row["accuracy error"] is not None and rows["ours"]["repeats"] == 2
    selected = rows["trace selects, retrained"]
    assert (selected["accuracy error"], selected["repeats"]) == (None, 1)


@pytest.mark.parametrize("drop", DROPS[1:])
def test_the_experiment_on_instances(bench: Workbench, drop: Any) -> None:
    config = EditingConfig(kind="editing", drop=drop, repeats=1, candidates=[*CHEAP, ASCENT])
    result = run(bench, config)
    rows = cells(result)
    assert list(rows)[2:] == ["ours", "gradient-ascent", "trace selects, retrained"]
    assert rows["ours"]["accuracy error"] is None  # one repeat
    assert rows["ours"][COLUMNS[8]] > 0
    assert any("plain steps up" in note for note in result.notes)


def test_where_training_rests_an_edit_is_nearer_than_none(tmp_path: Path) -> None:
    linear = {
        "model": {"name": "mlp", "hidden": [], "ways": WAYS},
        "training.epochs": 80,
        "training.batch": 8,
        "training.lr": 0.05,
        "training.weight_decay": 0.02,
    }
    bench = bench_of(trained(tmp_path / "case", linear))
    influence = {"method": "task-if", "curvature": "exact", "damping": 0.0, "solver": "cg"}
    exact = CandidateConfig(name="exact", influence=influence)
    row = cells(run(bench, EditingConfig(kind="editing", repeats=1, candidates=[exact])))["exact"]
    assert row[COLUMNS[8]] < 0.8  # one task of 8 is no small change
    assert row[COLUMNS[9]] > 0.8  # over three evaluation tasks


def test_when_time_is_up_the_edits_are_still_reported(bench: Workbench) -> None:
    late = replace(bench, retrainer=replace(bench.retrainer, deadline=time.monotonic()))
    result = run(late, EditingConfig(kind="editing", repeats=2, candidates=CHEAP))
    assert not result.complete
    rows = cells(result)
    assert list(rows) == [UNEDITED, "ours"]
    assert rows["ours"][COLUMNS[3]] is None and rows["ours"]["repeats"] == 2
    assert result.figures[0].levels == {}


def test_the_last_of_several_checkpoints_is_edited(bench: Workbench) -> None:
    (own,) = bench.weights
    other = replace(own, params={name: 0.5 * p for name, p in own.params.items()})
    two = replace(bench, weights=(other, own))
    config = EditingConfig(kind="editing", repeats=1, candidates=CHEAP[:1])
    found, expected = run(two, config), run(bench, config)
    assert any("last of 2" in note for note in found.notes)
    for name in (UNEDITED, "ours"):
        assert cells(found)[name]["loss"] == cells(expected)[name]["loss"]


def test_an_edit_of_several_checkpoints_is_refused(bench: Workbench) -> None:
    two = replace(bench, weights=bench.weights * 2)
    paths = list(bench.config.checkpoints) * 2
    config = bench.config.model_copy(update={"checkpoint": paths})
    two = replace(two, problem=replace(bench.problem, config=config))
    asked = CHEAP[0].model_copy(update={"checkpoints": 2})
    with pytest.raises(ConfigError, match=r"checkpoints: .* last checkpoint alone; expected 1"):
        run(two, EditingConfig(kind="editing", repeats=1, candidates=[asked]))


def test_an_edit_that_is_not_finite_is_told_of(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        edits, "_uphill", lambda stages, params, _: float("nan") * Layout.of(params).flatten(params)
    )
    late = replace(bench, retrainer=replace(bench.retrainer, deadline=time.monotonic()))
    result = run(late, EditingConfig(kind="editing", repeats=1, candidates=[ASCENT]))
    assert cells(result)["gradient-ascent"]["loss"] is None
    assert any(note.startswith("gradient-ascent: an edit has losses") for note in result.notes)


def test_a_named_candidate_that_cannot_be_used_is_an_error(bench: Workbench) -> None:
    wrong = CandidateConfig(name="odd", influence={"solver": "gmres"})
    with pytest.raises(ConfigError, match="odd"):
        run(bench, EditingConfig(kind="editing", candidates=[wrong]))


def test_one_task_cannot_be_left_out(bench: Workbench) -> None:
    alone = replace(bench, problem=replace(bench.problem, train=bench.problem.train.select([0])))
    with pytest.raises(TaskSetError, match="one training task"):
        run(alone, EditingConfig(kind="editing"))
