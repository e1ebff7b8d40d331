"""What a learner says after adaptation, against plain loops and central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metaaudit.bilevel import Objective, TaskTensors
from metaaudit.config.mislabel import MislabelConfig
from metaaudit.inputs.task_set import Task, TaskSet
from metaaudit.labelnoise import (
    adapted_fit,
    assign_folds,
    leave_one_out_fit,
    own_influence,
    support_fit,
)
from metaaudit.labelnoise.cross_fitting import SUPPORT_FOLDS
from metaaudit.models import Params
from tests.labelnoise.made_tasks import WAYS, Case, batching, learner_case


def folded(*parts: Any) -> np.ndarray:
    """The fit to folds of the support, with a seed."""
    found: np.ndarray = support_fit(*parts[:4], FOLDED, *parts[4:])
    return found


FOLDED = MislabelConfig(seed=3)
FITS: list[Callable[..., Any]] = [adapted_fit, leave_one_out_fit, own_influence, folded]
SIZES = (0, 2, 0, 1)


@pytest.fixture(scope="module")
def case() -> Case:
    """Tasks of three sizes, one of which occurs twice."""
    return learner_case(sizes=SIZES)


def tensors(task_set: TaskSet, task: Task) -> TaskTensors:
    """One task, without a leading dimension."""
    (batch,) = batching(1).batches(TaskSet(task_set.pool, (task,)))
    return TaskTensors(*(part[0] for part in batch.data))


def ones(values: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(values), dtype=torch.float64)


def classified(objective: Objective, theta: Params, x: torch.Tensor) -> np.ndarray:
    found: np.ndarray = torch.log_softmax(objective.forward(theta, x), -1).numpy()
    return found


def test_the_adapted_fit_equals_a_loop(case: Case) -> None:
    objective, params, task_set = case
    expected = []
    for task in task_set.tasks:
        data = tensors(task_set, task)
        theta = objective.adapt(params, ones(data.support_y), data)
        expected += [classified(objective, theta, x) for x in (data.support_x, data.query_x)]
    found = adapted_fit(*case, batching())
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-9, atol=1e-9)


def test_leaving_one_out_equals_adapting_to_a_support_without_it(case: Case) -> None:
    objective, params, task_set = case
    found = leave_one_out_fit(*case, batching(30))
    start = 0
    for task in task_set.tasks:
        n, m = task.shape
        for i in range(n):
            rest = np.arange(n) != i
            held, label = task.support[[i]], task.support_y[[i]]
            cut = Task("cut", task.support[rest], task.support_y[rest], held, label)
            data = tensors(task_set, cut)
            theta = objective.adapt(params, ones(data.support_y), data)
            expected = classified(objective, theta, data.query_x)[0]
            np.testing.assert_allclose(found[start + i], expected, rtol=1e-9, atol=1e-9)
        start += n + m
    assert start == len(found)


def test_leaving_a_fold_out_equals_adapting_to_a_support_without_it(case: Case) -> None:
    objective, params, task_set = case
    found, start, several = folded(*case, batching(30)), 0, 0
    for task in task_set.tasks:
        n, m = task.shape
        folds = assign_folds(task, SUPPORT_FOLDS, (FOLDED.seed, 0), ("support",))
        assert folds.max() + 1 == min(SUPPORT_FOLDS, n)
        for fold in range(folds.max() + 1):
            held = folds == fold
            several += held.sum() > 1
            cut = Task(
                "cut",
                task.support[~held],
                task.support_y[~held],
                task.support[held],
                task.support_y[held],
            )
            data = tensors(task_set, cut)
            theta = objective.adapt(params, ones(data.support_y), data)
            expected = classified(objective, theta, data.query_x)
            place = start + np.flatnonzero(held)
            np.testing.assert_allclose(found[place], expected, rtol=1e-9, atol=1e-9)
        start += n + m
    assert several


@pytest.mark.parametrize("fit", [leave_one_out_fit, folded])
def test_leaving_out_changes_nothing_for_the_query(case: Case, fit: Callable[..., Any]) -> None:
    queries = np.array([name == "query" for _, name, _ in case[2].instances()])
    left_out, adapted = fit(*case, batching()), adapted_fit(*case, batching())
    np.testing.assert_allclose(left_out[queries], adapted[queries], rtol=1e-9, atol=1e-9)
    # A learner does worse on a label that it was kept from.
    assert np.abs(left_out[~queries] - adapted[~queries]).max(axis=1).min() > 1e-4


def test_own_influence_equals_central_differences(case: Case) -> None:
    objective, params, task_set = case
    found, start, step = own_influence(*case, batching()), 0, 1e-5
    assert found.shape == (task_set.n_instances, 1)
    for task in task_set.tasks:
        data = tensors(task_set, task)
        n, m = task.shape

        def loss(weights: torch.Tensor, data: TaskTensors = data, n: int = n) -> float:
            return float(objective.task_loss(params, weights[:n], weights[n:], data))

        for i in range(n + m):
            shift = step * torch.eye(n + m, dtype=torch.float64)[i]
            even = torch.ones(n + m, dtype=torch.float64)
            size = n if i < n else m
            expected = size * (loss(even + shift) - loss(even - shift)) / (2 * step)
            assert found[start + i, 0] == pytest.approx(expected, rel=1e-6, abs=1e-9)
        start += n + m


def test_own_influence_on_the_query_is_its_loss(case: Case) -> None:
    task_set = case[2]
    own, log_p = own_influence(*case, batching()), adapted_fit(*case, batching())
    for i, (row, name, index) in enumerate(task_set.instances()):
        task = task_set.tasks[row]
        if name == "query":
            expected = -log_p[i, task.query_y[index]]
            assert own[i, 0] == pytest.approx(expected, rel=1e-9)


def test_a_wrong_support_label_hurts_its_queries(case: Case) -> None:
    objective, params, task_set = case
    task = task_set.tasks[0]
    wrong = task.support_y.copy()
    wrong[1] = (wrong[1] + 1) % WAYS
    changed = Task(task.task_id, task.support, wrong, task.query, task.query_y)
    before = own_influence(objective, params, task_set.select([0]), batching())
    after = own_influence(objective, params, TaskSet(task_set.pool, (changed,)), batching())
    assert after[1, 0] > 0 > before[1, 0]


@pytest.mark.parametrize("fit", FITS)
def test_no_fit_depends_on_the_batch_size(case: Case, fit: Callable[..., Any]) -> None:
    one, many = fit(*case, batching(1)), fit(*case, batching(100))
    np.testing.assert_allclose(many, one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fit", FITS)
def test_every_fit_tells_of_every_task(case: Case, fit: Callable[..., Any]) -> None:
    told: list[int] = []
    fit(*case, batching(), told.append)
    assert sum(told) == len(SIZES)
