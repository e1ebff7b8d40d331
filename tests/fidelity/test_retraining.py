"""Retraining: as `train` does it, kept, resumed, and the same however it is divided up."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from metaaudit import meta_train
from metaaudit.bilevel import total_gradients
from metaaudit.cache import FactorCache
from metaaudit.config import load_config
from metaaudit.console import Messages
from metaaudit.errors import ConfigError, IncompleteError
from metaaudit.fidelity.retraining import Retrained, Retrainer, Retraining, performance
from metaaudit.fidelity.subsets import without_instances
from metaaudit.fidelity.training_run import TrainingRun, array_name
from metaaudit.inputs.task_set import TaskSet
from metaaudit.loading import load_weights, prepare
from metaaudit.problem import Problem
from tests.small import WAYS, Case, digits, write_case

FACTORY = f"""
from torch import nn

def build(hidden):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, {WAYS}))
"""

LEARNERS: list[dict[str, Any]] = [
    {"name": "maml", "inner_lr": 0.3, "steps": 2},
    {"name": "fomaml", "inner_lr": 0.3, "steps": 2},
    {"name": "imaml", "inner_lr": 0.3, "steps": 5, "proximity": 1.0},
    {"name": "protonet"},
]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return write_case(tmp_path / "case")


def problem_of(case: Case, *changes: str) -> Problem:
    return prepare(load_config(case.config, changes))


def quiet() -> Messages:
    return Messages(Console(file=io.StringIO(), width=200))


def said(messages: Messages) -> str:
    found = messages.console.file
    assert isinstance(found, io.StringIO)
    return found.getvalue()


def retrainer(problem: Problem, folder: Path, **options: Any) -> Retrainer:
    return Retrainer(problem, FactorCache(folder), quiet(), **options)


def all_kinds(problem: Problem) -> list[Retraining]:
    """Every way in which retrainings differ."""
    train = problem.train
    labels = replace(train.tasks[0], query_y=(train.tasks[0].query_y + 1) % WAYS)
    other = digits(seed=5)[0]
    start = {name: p + 0.01 for name, p in problem.template.items()}
    return [
        Retraining(train, 3),
        Retraining(train.select([0, 2, 4, 5]), 3),
        Retraining(TaskSet(train.pool, (labels, *train.tasks[1:])), 3),
        Retraining(without_instances(train, [(1, "support", 0)]), 3, epochs=1),
        Retraining(train, 4, start=start),
        Retraining(other, 3),
    ]


def assert_same(got: Sequence[Retrained | None], expected: Sequence[Retrained | None]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one is not None and other is not None
        assert list(one.params) == list(other.params)
        for name, p in other.params.items():
            assert torch.equal(one.params[name], p), name
        np.testing.assert_array_equal(one.performance.losses, other.performance.losses)
        np.testing.assert_array_equal(one.performance.accuracies, other.performance.accuracies)


def refuse(patch: pytest.MonkeyPatch) -> None:
    def arrays(*_: Any) -> None:
        raise AssertionError("trained again")

    patch.setattr(TrainingRun, "arrays", arrays)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner["name"])
def test_it_is_what_train_does(tmp_path: Path, learner: dict[str, Any]) -> None:
    case = write_case(tmp_path / "case", {"learner": learner})
    recipe = load_config(case.config, ["training.seed=7"])
    meta_train.run(recipe, quiet(), resume=False, overwrite=False)
    problem = problem_of(case)  # whose own seed is another
    trained = load_weights(problem).params
    (found,) = retrainer(problem, tmp_path / "cache").run([Retraining(problem.train, 7)])
    assert found is not None
    for name, p in trained.items():
        assert torch.equal(found.params[name], p), name
    gradients = total_gradients(problem.as_evaluated(trained, problem.evaluation))
    np.testing.assert_allclose(found.performance.losses, gradients.outer_loss, rtol=1e-6)
    queries = [name == "query" for _, name, _ in problem.evaluation.instances()]
    hits = gradients.correct[queries].reshape(len(problem.evaluation), -1).mean(axis=1)
    np.testing.assert_array_equal(found.performance.accuracies, hits)
    assert found.seconds > 0
    same = performance(problem, trained)
    np.testing.assert_array_equal(same.losses, found.performance.losses)
    np.testing.assert_array_equal(same.accuracies, found.performance.accuracies)


def test_the_same_bytes_in_any_number_of_processes_and_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(FACTORY)
    model = {"factory": "own:build", "path": str(tmp_path), "args": {"hidden": 4}}
    case = write_case(tmp_path / "case", {"model": model})
    problem = problem_of(case)
    requests = all_kinds(problem)
    alone = retrainer(problem, tmp_path / "alone").run(requests)
    by_two = retrainer(problem, tmp_path / "two", jobs=2).run(requests[::-1])
    assert_same(by_two[::-1], alone)
    vectors = [torch.cat([p.flatten() for p in one.params.values()]) for one in alone if one]
    different = {tuple(vector.tolist()) for vector in vectors}
    assert len(different) == len(requests)
    refuse(monkeypatch)
    again = retrainer(problem, tmp_path / "two")
    assert_same(again.run(requests), alone)
    assert "6 of 6 are in the cache" in said(again.messages)


def test_the_same_request_twice_is_done_once(tmp_path: Path, case: Case) -> None:
    problem = problem_of(case)
    trained = retrainer(problem, tmp_path / "cache")
    again = problem.train.select(range(len(problem.train)))
    assert_same(*(2 * [one] for one in trained.run([Retraining(problem.train, 1)] * 2)))
    assert_same(trained.run([Retraining(again, 1)]), trained.run([Retraining(problem.train, 1)]))
    assert len(list((tmp_path / "cache").glob("*.h5"))) == 1
    assert trained.cache.uses == {}


CHANGES: list[tuple[str, ...]] = [
    ("model.hidden=[9]",),
    ("learner.inner_lr=0.2",),
    ("training.lr=0.02",),
    ("training.weight_decay=0.1",),
    ("training.epochs=3",),
    ("training.batch=3",),
    ("compute.dtype=float64",),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
def test_key_tells_recipes_apart(tmp_path: Path, case: Case, change: tuple[str, ...]) -> None:
    def key(*changes: str) -> dict[str, Any]:
        problem = problem_of(case, *changes)
        return retrainer(problem, tmp_path).key(Retraining(problem.train, 0))

    assert key(*change) != key()
    # The seed of the configuration is not that of the request, nor is speed part of the result.
    assert (
        key(
            "training.seed=5",
            "training.snapshots=1",
            "compute.task_batch=3",
            "influence.damping=0.5",
        )
        == key()
    )


def test_key_tells_requests_apart(tmp_path: Path, case: Case) -> None:
    problem = problem_of(case)
    requests = all_kinds(problem)
    keys = {str(retrainer(problem, tmp_path).key(request)) for request in requests}
    other = replace(problem, evaluation=problem.evaluation.select([0]))
    keys.add(str(retrainer(other, tmp_path).key(requests[0])))
    assert len(keys) == len(requests) + 1


def test_an_interrupted_run_goes_on_where_it_was(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(case)
    requests = [Retraining(problem.train, seed) for seed in range(4)]
    done: list[int] = []
    arrays = TrainingRun.arrays
    stop_at = 2

    def counting(self: TrainingRun, work: Any) -> Any:
        if len(done) == stop_at:
            raise KeyboardInterrupt
        found = arrays(self, work)
        done.append(work.training.seed)
        return found

    monkeypatch.setattr(TrainingRun, "arrays", counting)
    interrupted = retrainer(problem, tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(requests)
    assert "2 of 4; what is done is kept: the same command with a new --run" in said(
        interrupted.messages
    )
    stop_at = 9
    assert None not in retrainer(problem, tmp_path / "cache").run(requests)
    assert done == [0, 1, 2, 3]
    assert not list((tmp_path / "cache").glob(".*"))


def test_damaged_results_are_done_again(tmp_path: Path, case: Case) -> None:
    problem = problem_of(case)
    requests = [Retraining(problem.train, 0)]
    before = retrainer(problem, tmp_path / "cache").run(requests)
    (path,) = (tmp_path / "cache").glob("*.h5")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    again = retrainer(problem, tmp_path / "cache")
    assert_same(again.run(requests), before)
    assert "was damaged" in again.cache.warnings[0]


def test_no_time_begins_nothing_but_takes_what_is_there(tmp_path: Path, case: Case) -> None:
    problem = problem_of(case)
    requests = [Retraining(problem.train, seed) for seed in range(3)]
    before = retrainer(problem, tmp_path / "cache").run(requests[1:2])
    late = retrainer(problem, tmp_path / "cache", deadline=0.0)
    found = late.run(requests)
    assert [one is None for one in found] == [True, False, True]
    assert_same(found[1:2], before)
    assert "no time for 2 of 3; what is done is kept: the same command with a new --run" in said(
        late.messages
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_loss_that_is_not_finite_is_told_with_its_retraining(
    tmp_path: Path, case: Case, jobs: int
) -> None:
    problem = problem_of(case)
    nan = {name: p * float("nan") for name, p in problem.template.items()}
    requests = [Retraining(problem.train, 0), Retraining(problem.train, 9, start=nan)]
    with pytest.raises(
        IncompleteError,
        match=r"^retraining 2 of 2 \(training.seed 9\): train: the loss of epoch 1 is nan; exp",
    ):
        retrainer(problem, tmp_path / "cache", jobs=jobs).run(requests)


def test_an_evaluation_loss_that_is_not_finite_is_no_result(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(case)
    bad = replace(
        problem.evaluation.pool,
        pixels=np.full(problem.evaluation.pool.pixels.shape, np.float32("nan")),
    )
    problem = replace(problem, evaluation=replace(problem.evaluation, pool=bad))
    with pytest.raises(IncompleteError, match=r"retraining 1 of 1 .* evaluation task is not finit"):
        retrainer(problem, tmp_path / "cache").run([Retraining(problem.train, 0)])
    assert not list((tmp_path / "cache").glob("*.h5"))


def test_running_statistics_are_refused(tmp_path: Path, case: Case) -> None:
    problem = problem_of(case)
    model = problem.config.model.model_copy(update={"statistics": "running"})
    running = replace(problem, config=problem.config.model_copy(update={"model": model}))
    with pytest.raises(ConfigError, match=r"model.statistics: is running"):
        retrainer(running, tmp_path).run([Retraining(problem.train, 0)])


def test_names_of_parameters_with_slashes_are_kept_apart() -> None:
    assert "/" not in array_name("a/b.weight")
    assert array_name("a/b") != array_name("a%2Fb")
