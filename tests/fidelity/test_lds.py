"""The LDS experiment on made-up retrainings, whose losses add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from metaaudit.config.evaluate import CandidateConfig, LdsConfig
from metaaudit.config.learner import LEARNERS
from metaaudit.config.training import TrainingConfig
from metaaudit.errors import ConfigError, TaskSetError
from metaaudit.fidelity.candidates import default_candidates
from metaaudit.fidelity.experiments import experiment
from metaaudit.fidelity.removals import Removals
from metaaudit.fidelity.results import Result, Table
from metaaudit.fidelity.retraining import Performance, Retrained, Retraining
from metaaudit.fidelity.workbench import Workbench
from metaaudit.inputs.task_set import TaskSet
from metaaudit.methods import METHODS, MethodScores
from tests.small import digits

TRAIN, EVALUATION = digits(n_train=12, n_eval=4)
Floats = np.ndarray


@dataclass
class MadeUp:
    """A workbench whose losses are the sum of the true influences of what is kept, and noise."""

    noise: float = 0.0
    budget: int | None = None
    requests: list[Retraining] = field(default_factory=list)
    asked: list[CandidateConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.tasks = rng.normal(size=(len(TRAIN), len(EVALUATION)))
        self.instances = rng.normal(size=TRAIN.n_instances)
        self.problem = SimpleNamespace(train=TRAIN, evaluation=EVALUATION)
        self.weights = tuple(SimpleNamespace(params={"w": torch.tensor(i)}) for i in range(2))
        self.cache = SimpleNamespace(uses={})
        training = TrainingConfig(epochs=40, batch=4)
        self.config = SimpleNamespace(training=training, learner=SimpleNamespace(name="maml"))

    def scores(self, candidate: CandidateConfig, *, by_instance: bool) -> MethodScores:
        self.asked.append(candidate)
        match candidate.influence.get("method", "task-if"):
            case "task-if":
                factor = 1.0
            case "loss":
                factor = -1.0
            case "random":
                factor = 0.0
            case other:
                raise ConfigError("influence.method", f"is {other}")
        instances = factor * self.instances if by_instance else np.full(TRAIN.n_instances, np.nan)
        return MethodScores(factor * self.tasks, instances, {}, ())

    def retrain(self, requests: Sequence[Retraining]) -> list[Retrained | None]:
        self.requests = list(requests)
        allowed = len(requests) if self.budget is None else self.budget
        return [self._trained(r) if i < allowed else None for i, r in enumerate(requests)]

    def _trained(self, request: Retraining) -> Retrained:
        rows = [TRAIN.task_ids.index(task_id) for task_id in request.tasks.task_ids]
        losses = self.tasks[rows].sum(axis=0) + self._of_instances(request.tasks)
        rng = np.random.default_rng([request.seed, *rows])
        losses = losses + request.seed + self.noise * rng.normal(size=len(losses))
        return Retrained(Performance(losses, 0 * losses + 0.5), 1.5, {})

    def _of_instances(self, tasks: TaskSet) -> Floats:
        if tasks.n_instances == TRAIN.n_instances or len(tasks) < len(TRAIN):
            return np.zeros(len(EVALUATION))
        kept = set()
        for task in tasks.tasks:
            for name in ("support", "query"):
                kept |= {(task.task_id, name, int(row)) for row in task.rows(name)}
        gone = [
            i
            for i, (row, name, index) in enumerate(TRAIN.instances())
            if (t := TRAIN.tasks[row]) and (t.task_id, name, int(t.rows(name)[index])) not in kept
        ]
        return np.full(len(EVALUATION), -self.instances[gone].sum())


TRUE = CandidateConfig(name="true")
REVERSED = CandidateConfig(name="reversed", influence={"method": "loss"})
NOTHING = CandidateConfig(name="nothing", influence={"method": "random"})


def lds(bench: MadeUp, **settings: Any) -> Result:
    given: dict[str, Any] = {"candidates": [NOTHING, REVERSED, TRUE], "resamples": 50, **settings}
    return experiment("lds")(cast(Workbench, bench), LdsConfig(kind="lds", **given))


def table(result: Result, name: str) -> Table:
    return next(one for one in result.tables if one.name == name)


def column(result: Result, of: str, name: str) -> list[Any]:
    found = table(result, of)
    return [row[found.columns.index(name)] for row in found.rows]


@pytest.mark.parametrize("remove", ["subset", "task", "instance"])
def test_true_influences_predict_every_loss(remove: str) -> None:
    result = lds(MadeUp(), remove=remove, retrainings=10)
    assert column(result, "lds", "candidate") == ["true", "nothing", "reversed"]
    assert column(result, "lds", "LDS") == pytest.approx([1, 0, -1])
    assert column(result, "lds", "share of ceiling") == pytest.approx([1, 0, -1])
    assert column(result, "lds", "behind the best") == pytest.approx([0, 1, 2])
    assert column(result, "lds", "beyond 2 errors") == [False, True, True]
    assert any(line.startswith("nothing predicts one loss") for line in result.notes)
    assert result.complete
    assert result.details["ceiling"]["value"] == pytest.approx(1)
    (figure,) = result.figures
    assert figure.series[0].x == ("true", "nothing", "reversed")
    assert figure.levels["noise ceiling"] == pytest.approx(1)


def test_every_target_has_a_line_of_its_own() -> None:
    result = lds(MadeUp(), retrainings=10)
    assert column(result, "lds-targets", "evaluation task") == EVALUATION.task_ids
    assert column(result, "lds-targets", "true") == pytest.approx([1] * 4)
    assert column(lds(MadeUp(), remove="instance"), "lds-targets", "evaluation task") == ["mean"]


def test_noise_lowers_the_score_as_it_does_the_ceiling() -> None:
    result = lds(MadeUp(noise=2.0), retrainings=200, candidates=[TRUE])
    (score,), (share,) = (column(result, "lds", name) for name in ("LDS", "share of ceiling"))
    assert score < 0.9
    assert share == pytest.approx(1, abs=0.1)


def test_one_seed_gives_no_ceiling() -> None:
    result = lds(MadeUp(), retrainings=5, seeds=1)
    assert column(result, "lds", "share of ceiling") == [None] * 3
    assert result.figures[0].levels == {} and result.details["ceiling"] is None
    assert any("not known" in line for line in result.notes)


def test_subsets_are_half_of_the_tasks_and_seeds_follow_each_other() -> None:
    bench = MadeUp()
    lds(bench, retrainings=5, seeds=3, seed=7)
    assert [request.seed for request in bench.requests] == [7, 8, 9] * 5
    sizes = {len(request.tasks) for request in bench.requests}
    contents = [request.tasks.content_hash for request in bench.requests]
    assert sizes == {6} and len(set(contents)) == 5
    assert contents[0] == contents[1] == contents[2]
    assert {(r.start, r.epochs) for r in bench.requests} == {(None, None)}


def test_a_quarter_of_the_tasks() -> None:
    bench = MadeUp()
    lds(bench, retrainings=5, fraction=0.25)
    assert {len(request.tasks) for request in bench.requests} == {3}


def test_as_many_steps_as_on_all_tasks() -> None:
    bench = MadeUp()
    lds(bench, retrainings=3, same_steps=True)  # 3 batches an epoch become 2
    assert {request.epochs for request in bench.requests} == {60}


def test_a_warm_start_takes_a_tenth_of_the_epochs_from_the_last_checkpoint() -> None:
    bench = MadeUp()
    lds(bench, retrainings=3, warm_start=True)
    assert {request.epochs for request in bench.requests} == {4}
    assert all(r.start is bench.weights[-1].params for r in bench.requests)


def test_both_at_once() -> None:
    bench = MadeUp()
    lds(bench, retrainings=3, warm_start=True, same_steps=True)
    assert {request.epochs for request in bench.requests} == {6}


def test_leaving_out_one_task_compares_with_training_on_all_by_the_same_seed() -> None:
    bench = MadeUp()
    result = lds(bench, remove="task", retrainings=99, seeds=2)
    assert [len(request.tasks) for request in bench.requests] == [12] * 2 + [11] * 24
    named = column(result, "lds-retrainings", "without")
    changes = column(result, "lds-retrainings", "change of mean loss")
    expected = [-bench.tasks[TRAIN.task_ids.index(name)].mean() for name in named]
    assert changes == pytest.approx(expected)


def test_leaving_out_one_instance_leaves_every_class_and_a_query() -> None:
    bench = MadeUp()
    result = lds(bench, remove="instance", retrainings=1000, seeds=1)
    assert len(bench.requests) == 1 + TRAIN.n_instances
    for request in bench.requests[1:]:
        assert request.tasks.n_instances == TRAIN.n_instances - 1
        assert all(len(task.query) for task in request.tasks.tasks)
    assert any("mean over those that are left" in line for line in result.notes)


def test_what_the_time_allowed_is_compared() -> None:
    bench = MadeUp(budget=9)  # of the fifth removal one seed is done
    result = lds(bench, retrainings=6, seeds=2)
    assert not result.complete
    assert result.details["retrainings"] == {"done": 4, "asked": 6, "seeds": 2}
    assert len(table(result, "lds-retrainings").rows) == 8
    assert column(result, "lds", "LDS") == pytest.approx([1, 0, -1])


@pytest.mark.parametrize("remove", ["subset", "task"])
@pytest.mark.parametrize("budget", [0, 5])
def test_too_few_are_not_compared(remove: str, budget: int) -> None:
    result = lds(MadeUp(budget=budget), remove=remove, retrainings=6, seeds=2)
    assert [one.name for one in result.tables] == ["lds-retrainings"]
    assert not result.complete and not result.figures
    assert "too few" in result.notes[0]


@pytest.mark.parametrize(
    "settings", [{"retrainings": 2}, {"fraction": 0.01}, {"remove": "task", "retrainings": 1}]
)
def test_what_would_tell_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TaskSetError, match="tell nothing"):
        lds(MadeUp(), **settings)


def test_a_share_of_all_tasks_leaves_nothing_out_and_is_refused() -> None:
    with pytest.raises(TaskSetError, match="tell nothing"):
        Removals.of(TRAIN, LdsConfig(kind="lds", fraction=0.99))


def test_all_methods_are_compared_by_default() -> None:
    bench = MadeUp()
    result = lds(bench, retrainings=4, candidates=None)
    names = [one.name for one in bench.asked]
    assert {"task-if exact", "task-if ekfac", "dot", "trak", "random"} <= set(names)
    assert "task-if jacobian" not in names
    assert {one.influence["method"] for one in bench.asked} == set(METHODS)
    assert all(one.influence["targets"] == "each" for one in bench.asked)
    assert any(line.startswith("trak is left out: influence.method") for line in result.notes)


@pytest.mark.parametrize("learner", LEARNERS)
def test_curvatures_suit_the_learner(learner: str) -> None:
    names = [one.name for one in default_candidates(learner) if one.name.startswith("task-if")]
    assert (names == ["task-if jacobian"]) == (learner in ("fomaml", "reptile"))


def test_a_candidate_that_is_named_must_do() -> None:
    with pytest.raises(ConfigError, match=r"influence\.method"):
        lds(MadeUp(), candidates=[CandidateConfig(name="x", influence={"method": "y"})])
