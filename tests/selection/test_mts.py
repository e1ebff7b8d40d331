"""Learned selection: its derivative, what its settings do, and what it finds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

import metaaudit
from metaaudit.bilevel import total_gradients
from metaaudit.config.mts import MtsConfig
from metaaudit.curvature.fingerprint import COMPUTING
from metaaudit.demo import digit_tasks
from metaaudit.inputs.task_set import Task, TaskSet
from metaaudit.learners import Unadapted
from metaaudit.loading import assemble
from metaaudit.methods import METHODS
from metaaudit.methods.data_features import SELECTING, data_features, observer_of
from metaaudit.models import Head, Layout, Params
from metaaudit.problem import Problem
from metaaudit.selection import (
    DYNAMICS,
    HELD_OUT,
    POSITIONS,
    MetaNetwork,
    Selected,
    Selector,
    WeightedBatch,
    WeightedInstances,
    WeightedTasks,
    beside_held_out,
    standardised,
    task_features,
)
from metaaudit.training import MetaTrainer, TrainingState, flip_labels
from tests.methods.small_given import (
    at_batch,
    configured,
    digit_problem,
    given,
    moved,
    scores,
    small_problem,
)

STEP = 0.3


def selector(problem: Problem, unit: type[WeightedBatch], **settings: Any) -> Selector:
    config = MtsConfig(**{"epochs": 2, "hidden": 4, "lr": 0.01, "lookahead": STEP, **settings})
    parts = (problem.unrolled, problem.train, problem.evaluation, config)
    return Selector(unit, *parts, problem.config.training, 0)


def selected(chosen: Selector, problem: Problem, x: np.ndarray) -> Selected:
    """After all epochs, from the features of the instances."""
    own = task_features(x, problem.train) if chosen.unit is WeightedTasks else x
    arrays = None
    for number in range(chosen.config.epochs):
        arrays = chosen.epoch(number, arrays, problem.template, own, lambda _: None)
    assert arrays is not None
    return chosen.selected(arrays)


def features(problem: Problem, params: Params | None = None) -> np.ndarray:
    return data_features(given(problem, params).stages)


def labelled_problem() -> Problem:
    """The instances of the small problem as batches for a classifier."""
    problem, nothing = small_problem(learner=Unadapted()), np.empty(0, dtype=np.int64)

    def batches(task_set: TaskSet) -> TaskSet:
        names = tuple(map(str, range(task_set.ways)))
        tasks = [
            Task(t.task_id, nothing, nothing, np.r_[t.support, t.query], t.pooled_labels, names)
            for t in task_set.tasks
        ]
        return TaskSet(task_set.pool, tuple(tasks))

    return replace(problem, train=batches(problem.train), evaluation=batches(problem.evaluation))


@pytest.mark.parametrize("made", [small_problem, labelled_problem])
@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
@pytest.mark.parametrize("unit", [WeightedTasks, WeightedInstances])
def test_the_network_descends_along_the_held_out_loss_after_a_step(
    unit: type[WeightedBatch], normalisation: Any, made: Callable[[], Problem]
) -> None:
    """By central differences in the network's own parameters, through a real step."""
    problem = made()
    params, rows = problem.template, [0, 2, 3]
    every = torch.randn(100, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = every[unit.items(problem.train, rows)]
    network = MetaNetwork.new(5, 4, normalisation, 0, x)
    here, layout = problem.unrolled(params, problem.train.select(rows)), Layout.of(params)

    def moved() -> Params:
        gradient = unit(here, network, x, STEP).gradient()
        return layout.unflatten(layout.flatten(params) - STEP * gradient, params)

    def held_out() -> float:
        found = total_gradients(problem.unrolled(moved(), problem.evaluation))
        return float(found.outer_loss.mean())

    batch = unit(here, network, x, STEP)
    slope = total_gradients(problem.unrolled(moved(), problem.evaluation)).gradients.mean(axis=0)
    weights = list(network.layers.parameters())
    gain = batch.gain(batch.alignment(torch.from_numpy(slope)))
    expected = torch.autograd.grad(gain, weights)
    for parameter, derivative in zip(weights, expected, strict=True):
        values, flat = parameter.data.view(-1), derivative.view(-1)
        for place in range(0, len(values), 5):
            original, losses = float(values[place]), []
            for change in (1e-5, -1e-5):
                values[place] = original + change
                losses.append(held_out())
            values[place] = original
            slope_there = (losses[0] - losses[1]) / 2e-5
            assert slope_there == pytest.approx(float(flat[place]), rel=1e-5, abs=1e-10)


def test_the_batches_of_a_labelled_set_are_weighted_as_one() -> None:
    problem = labelled_problem()
    x = torch.randn(len(problem.train), 5, generator=torch.Generator().manual_seed(1)).double()
    x = x.repeat_interleave(problem.train.n_instances // len(x), dim=0)  # batches differ
    network = MetaNetwork.new(5, 4, "sum", 0, x)
    here = problem.unrolled(problem.template, problem.train)
    found = WeightedInstances(here, network, x, STEP)._weights
    torch.testing.assert_close(found, len(x) * network.shares(x))


@pytest.mark.parametrize("made", [small_problem, labelled_problem])
def test_equal_weights_train_as_without_any(made: Callable[[], Problem]) -> None:
    problem = made()
    here, x = problem.unrolled(problem.template, problem.train), torch.zeros(100, 3).double()
    expected = total_gradients(here).gradients.mean(axis=0)
    for unit in (WeightedTasks, WeightedInstances):
        own = x[unit.items(problem.train, list(range(len(problem.train))))]
        network = MetaNetwork.new(3, 4, "sum", 0, x)
        found = unit(here, network, own, STEP).gradient()
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-14)


WIDTHS = {
    "positions": len(POSITIONS),
    "dynamics": len(DYNAMICS),
    "held-out": len(HELD_OUT),
    "label": 3,
    "embedding": 3,
}


def with_features(*groups: str, **more: Any) -> Problem:
    asked = {"influence.method": "mts", "influence.mts.features": list(groups)}
    return digit_problem({**asked, **more})


def test_features_are_those_that_are_asked_for() -> None:
    problem = with_features(*WIDTHS)
    every = features(problem)
    assert every.shape == (problem.train.n_instances, sum(WIDTHS.values()))
    first = 0
    for group, width in WIDTHS.items():
        alone = features(with_features(group))
        np.testing.assert_array_equal(alone, every[:, first : first + width])
        first += width


def test_the_label_is_one_of_all() -> None:
    problem = with_features("label")
    labels = np.concatenate([task.pooled_labels for task in problem.train.tasks])
    np.testing.assert_array_equal(features(problem), np.eye(3)[labels])


def test_held_out_instances_are_seen_before_adaptation() -> None:
    problem = with_features("held-out")
    params = problem.template
    head = Head.of(problem.model, problem.train.pool.input_shape)

    def embedded(task_set: TaskSet) -> np.ndarray:
        rows = np.concatenate([[*t.support, *t.query] for t in task_set.tasks])
        x = torch.from_numpy(task_set.pool.values(rows)).double()
        return head.features(params, x).flatten(1).numpy()

    expected = beside_held_out(embedded(problem.train), embedded(problem.evaluation))
    np.testing.assert_allclose(features(problem), expected, rtol=1e-9, atol=1e-12)


def test_positions_are_among_all_instances_of_a_labelled_set() -> None:
    """However it is cut into batches."""
    problem = labelled_problem()
    problem = replace(problem, config=with_features("positions", "dynamics").config)
    found = features(problem)
    assert np.ptp(found[:, POSITIONS.index("agreement")]) > 0
    pieces = [
        Task(
            f"{k}{i}",
            t.support,
            t.support_y,
            t.query[i : i + 1],
            t.query_y[i : i + 1],
            t.class_names,
        )
        for k, t in enumerate(problem.train.tasks)
        for i in range(len(t.query))
    ]
    single = replace(problem, train=TaskSet(problem.train.pool, tuple(pieces)))
    np.testing.assert_allclose(features(single), found, rtol=1e-9, atol=1e-12)


def test_several_checkpoints_are_a_trajectory(tmp_path: Path) -> None:
    """Of which the dynamics are along all, and all else of the last."""
    start = with_features("dynamics", "positions")
    params = [start.template, moved(start, 1)]
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path, own in zip(paths, params, strict=True):
        save_file({name: p.contiguous() for name, p in own.items()}, path)
    asked = {"checkpoint": [str(path) for path in paths]}
    both = with_features("dynamics", "positions", **asked)
    found, alone = features(both), [features(start, own) for own in params]
    named = DYNAMICS.index
    for name, of in (("loss_first", 0), ("loss_last", 1), ("el2n", 1), ("gradient_norm", 1)):
        column = named(name)
        np.testing.assert_allclose(found[:, column], alone[of][:, column], rtol=1e-9)
    mean = np.mean([one[:, named("loss_mean")] for one in alone], axis=0)
    np.testing.assert_allclose(found[:, named("loss_mean")], mean, rtol=1e-9)
    np.testing.assert_allclose(found[:, len(DYNAMICS) :], alone[1][:, len(DYNAMICS) :], rtol=1e-9)
    np.testing.assert_array_equal(features(both, params[0]), features(both, params[1]))


def test_features_do_not_depend_on_the_task_batch() -> None:
    problem = digit_problem({"influence.method": "mts"})
    np.testing.assert_allclose(
        features(at_batch(problem, 1)), features(at_batch(problem, 5)), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", ["maml", "anil", "protonet", "ridge"])
def test_every_learner_has_features(name: str) -> None:
    steps = {"inner_lr": 0.3, "steps": 2} if name in ("maml", "anil") else {}
    problem = digit_problem({"influence.method": "mts", "learner": {"name": name, **steps}})
    assert len(observer_of(problem, problem.template).steps) == (3 if steps else 1)
    found = features(problem)
    assert np.isfinite(found).all()
    no_steps = found[:, [len(POSITIONS) + DYNAMICS.index("variability")]]
    assert (no_steps == 0).all() == (not steps)


def test_standardised_features() -> None:
    found = standardised(np.array([[1.0, 7.0], [3.0, 7.0]]))
    np.testing.assert_array_equal(found, [[-1, 0], [1, 0]])


def test_the_same_seed_gives_the_same_weights() -> None:
    problem = small_problem()
    x = features(problem)
    chosen = selector(problem, WeightedInstances)
    once, again = (selected(chosen, problem, x) for _ in range(2))
    for name, values in vars(once).items():
        np.testing.assert_array_equal(values, getattr(again, name))
    assert len(once.effective) == len(once.held_out_loss) == 2
    other = selected(replace(chosen, seed=1), problem, x)
    assert not np.array_equal(once.weights, other.weights)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"batch": 2},
        {"lr": 0.1},
        {"weight_decay": 0.5},
        {"hidden": 6},
        {"weights": "softmax"},
    ],
    ids=str,
)
def test_every_setting_does_something(change: dict[str, Any]) -> None:
    problem = small_problem()
    x = features(problem)
    usual, changed = (
        selected(selector(problem, WeightedTasks, **some), problem, x).weights
        for some in ({}, change)
    )
    assert np.abs(usual - changed).max() > 1e-12


def test_wrong_labels_lose_weight() -> None:
    train, held_out = digit_tasks(n_train=40, n_eval=20, ways=5, shots=5, queries=5, seed=0)
    planted = flip_labels(train, 0.2, seed=0)
    problem = assemble(
        configured(
            {
                "influence.method": "mts",
                "model": {"name": "mlp", "hidden": [32], "ways": 5},
                "training": {"epochs": 10, "batch": 10, "lr": 0.01, "weight_decay": 0.001},
                "compute.dtype": "float32",
            }
        ),
        planted.task_set,
        held_out,
    )
    trainer = MetaTrainer(problem.as_trained, problem.train, problem.config.training)
    params = trainer.run(TrainingState.initial(problem.template), lambda _: None).params
    x = features(problem, params)
    chosen = selector(problem, WeightedInstances, epochs=8, hidden=32, batch=20, lr=0.005)
    found = selected(chosen, problem, x)
    assert found.held_out_loss[-1] < found.held_out_loss[0]
    assert roc_auc_score(~planted.wrong, found.weights) > 0.7


def test_how_the_weights_came_about_is_told() -> None:
    found = scores(small_problem({"influence.method": "mts", "influence.mts.epochs": 3}))
    for unit in ("tasks", "instances"):
        told = found.solver["learned"][unit]
        assert len(told["effective"]) == len(told["held_out_loss"]) == 3
        assert all(0 < share <= 1 for share in told["effective"])
    assert found.task_influence.mean() == pytest.approx(0, abs=1e-12)
    assert found.instance_influence.mean() == pytest.approx(0, abs=1e-12)


MAKES_NO_NUMBERS = (
    *("cache/", "config/", "runs/", "inputs/", "console.py", "errors.py", "finite.py"),
    *("keeping.py", "manifest.py", "methods/base.py", "printable.py", "problem.py", "stages.py"),
    *("team.py", "room.py", "loading.py"),
)
"""Where what is computed is asked for, kept and put together."""


def test_all_code_that_computes_weights_is_in_their_key() -> None:
    asked = given(small_problem({"influence.method": "mts", "influence.mts.epochs": 1}))
    seen: set[str] = set()

    def watch(frame: FrameType, *_: object) -> None:
        seen.add(frame.f_code.co_filename)

    sys.setprofile(watch)
    try:
        METHODS["mts"](asked)
    finally:
        sys.setprofile(None)
    root = Path(metaaudit.__file__).parent
    ran = {str(Path(name).relative_to(root)) for name in seen if name.startswith(str(root))}
    assert {"selection/mts.py", "selection/features.py", "training/state.py"} <= ran
    known = {
        str(path.relative_to(root))
        for pattern in (*COMPUTING, *SELECTING)
        for path in root.glob(pattern)
    }
    assert {name for name in ran - known if not name.startswith(MAKES_NO_NUMBERS)} == set()
