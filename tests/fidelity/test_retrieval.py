"""Self-retrieval against ranks that are counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from metaaudit.config.evaluate import CandidateConfig, RetrievalConfig
from metaaudit.fidelity.experiments.retrieval import run, self_ranks
from tests.fidelity.ablation_cases import bench, trained


def test_the_lowest_influence_has_rank_one():
    influence = np.array([[-5.0, 1.0, 5.0], [0.0, 2.0, 5.0], [-4.0, -1.0, 5.0]])
    # Task 0 is first on itself, task 1 last, and on target 2 all three are alike.
    assert self_ranks(influence).tolist() == [1, 3, 2]
    assert self_ranks(influence[:, :1]).tolist() == [1]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("retrieval"))


def asked(**changes):
    candidates = [
        CandidateConfig(
            name="task-fisher", influence={"targets": "mean", "curvature": "task-fisher"}
        ),
        CandidateConfig(name="dot", influence={"method": "dot"}),
    ]
    return RetrievalConfig(kind="retrieval", **{"candidates": candidates, **changes})


def test_ranks_are_those_of_the_total_gradients(case):
    work = bench(case)
    result = run(work, asked(tasks=5))
    (given,) = work.given(CandidateConfig(name="any"))
    gradients = given.own.numpy()
    products = -gradients @ gradients.T / len(gradients)
    for_dot = [1 + sum(products[:, k] < products[k, k]) for k in range(5)]
    assert result.details["ranks"]["dot"] == for_dot
    # By the dual of the task-Fisher, m/N G^T G + shift: one product with its inverse a pair.
    m, solver = len(work.problem.train.tasks[0].query), given.stages.problem.config
    shift = 0.1 * m * (gradients**2).sum() / len(gradients) / len(gradients)
    shift += solver.training.weight_decay
    hessian = m / len(gradients) * gradients.T @ gradients + shift * np.eye(gradients.shape[1])
    products = -gradients @ np.linalg.solve(hessian, gradients.T) / len(gradients)
    expected = [1 + sum(products[:, k] < products[k, k]) for k in range(5)]
    assert result.details["ranks"]["task-fisher"] == expected
    rows = {row[0]: row[1:] for row in result.tables[0].rows}
    share = sum(rank == 1 for rank in for_dot) / 5
    assert rows["dot"][:2] == (share, np.mean(for_dot))
    assert rows["dot"][3] == max(for_dot)
    assert result.figures[0].series[0].y[1] == share
    assert result.figures[0].levels == {"chance": 1 / 8}


def test_all_training_tasks_are_targets_where_nothing_is_said(case):
    result = run(bench(case), asked())
    assert len(result.details["ranks"]["dot"]) == 8
    assert len(run(bench(case), asked(tasks=99)).details["ranks"]["dot"]) == 8
    assert "By chance the share of rank 1 is 0.125, the mean rank 4.5." in result.notes


def test_methods_are_compared_by_default(case):
    result = run(bench(case), asked(tasks=1, candidates=None))
    names = [row[0] for row in result.tables[0].rows]
    assert {"task-if task-fisher", "task-if exact", "dot"} <= set(names)
