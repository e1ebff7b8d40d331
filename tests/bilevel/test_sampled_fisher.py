"""The sampled Fisher against the Gauss-Newton matrix that it stands for."""

import pytest
import torch

from metaaudit.bilevel import Objective, TotalHessian, Unrolled, fisher_factor, sampled_fisher_rows
from metaaudit.curvature import fisher_terms
from metaaudit.learners import MAML
from tests.bilevel.small_networks import (
    assert_close,
    batching,
    ragged_tasks,
    random_tasks,
    small_mlp,
)

MANY = 600


def adaptation(tasks, size=2):
    objective = Objective(small_mlp(), MAML(inner_lr=0.3, steps=2))
    return Unrolled(objective, objective.forward.initial(), tasks(), batching(size))


def factor(adapted, probes, *, seed=0, fisher="true"):
    terms = fisher_terms(adapted.objective.mean_loss, fisher)
    return fisher_factor(sampled_fisher_rows(adapted, terms, probes, seed))


def dense(adapted, form):
    return TotalHessian(adapted, form)(torch.eye(adapted.layout.size, dtype=torch.float64))


@pytest.mark.parametrize("tasks", [random_tasks, ragged_tasks])
@pytest.mark.parametrize(("fisher", "form"), [("true", "ggn"), ("empirical", "instance-fisher")])
def test_many_probes_come_to_the_matrix_they_are_drawn_from(tasks, fisher, form):
    adapted = adaptation(tasks)
    rows, expected = factor(adapted, MANY, fisher=fisher), dense(adapted, form)
    found = rows.T @ rows
    # The error of a mean of independent products falls as 1 / sqrt(MANY), here to a few per cent.
    assert torch.linalg.norm(found - expected) < 0.2 * torch.linalg.norm(expected)
    fewer = factor(adapted, MANY // 60, fisher=fisher)
    error = torch.linalg.norm(fewer.T @ fewer - expected)
    assert error > 2 * torch.linalg.norm(found - expected)


def test_the_mean_over_seeds_is_unbiased():
    adapted = adaptation(random_tasks)
    each = [factor(adapted, 1, seed=seed) for seed in range(100)]
    mean = torch.stack([rows.T @ rows for rows in each]).mean(0)
    expected = dense(adapted, "ggn")
    assert torch.linalg.norm(mean - expected) < 0.4 * torch.linalg.norm(expected)


@pytest.mark.parametrize("size", [1, 4])
def test_rows_do_not_depend_on_how_many_tasks_are_computed_at_once(size):
    expected = factor(adaptation(ragged_tasks), 3)
    assert_close({"": factor(adaptation(ragged_tasks, size), 3)}, {"": expected}, 1e-12)


def test_a_seed_gives_the_same_rows_and_another_one_others():
    adapted = adaptation(random_tasks)
    assert torch.equal(factor(adapted, 2), factor(adapted, 2))
    assert not torch.allclose(factor(adapted, 2), factor(adapted, 2, seed=1))


def test_every_task_has_signs_of_its_own():
    adapted = adaptation(random_tasks)
    alone = factor(adapted.over([1]), 2)
    among = factor(adapted, 2).unflatten(0, (-1, 2))[1] * len(adapted.task_set) ** 0.5
    assert not torch.allclose(alone, among)  # those of the position, which differs
    first = factor(adapted, 2).unflatten(0, (-1, 2))[0] * len(adapted.task_set) ** 0.5
    assert_close({"": factor(adapted.over([0]), 2)}, {"": first}, 1e-12)


def test_parts_of_a_set_have_the_rows_of_the_whole():
    adapted = adaptation(ragged_tasks)
    terms = fisher_terms(adapted.objective.mean_loss, "true")
    whole = sampled_fisher_rows(adapted, terms, 2, 0)
    for rows in ([0, 1], list(range(2, len(whole)))):
        part = sampled_fisher_rows(adapted.over(rows), terms, 2, 0, first=rows[0])
        assert_close({"": part}, {"": whole[rows]}, 1e-12)
