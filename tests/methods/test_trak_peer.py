"""TRAK of a model that is trained once, against traker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metaaudit.learners import MAML
from metaaudit.methods import averaged_scores
from tests.methods.small_given import Unchanged, moved, scores, small_problem

trak = pytest.importorskip("trak", reason="a peer, not among the test's packages")
projectors = pytest.importorskip("trak.projectors", reason="a peer, not among the test's packages")

N_TASKS, RIDGE = 40, 0.5
"""More data points than the 26 parameters."""


class Identity:
    """No projection, so that both see the same features."""

    def __init__(self, size, dimension, seed):
        pass

    def down(self, vectors):
        return vectors.double()

    up = down


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setattr("metaaudit.methods.trak.Projection", Identity)
    # Theirs is added to a sum over data points, ours to a mean.
    changes = {"influence.method": "trak", "influence.damping": RIDGE / N_TASKS}
    return small_problem(changes, learner=Unchanged(), n_tasks=N_TASKS, n=2, m=1)


def points(task_set):
    """The one query of every task."""
    x = torch.from_numpy(np.concatenate([task_set.pool.values(t.query) for t in task_set.tasks]))
    return x.float(), torch.from_numpy(np.concatenate([t.query_y for t in task_set.tasks]))


def theirs(problem, checkpoints, folder):
    """``[n_tasks, n_targets]``, positive where training on a point raises the target's margin."""
    train, targets = points(problem.train), points(problem.evaluation)
    model = problem.model.module.float()
    traker = trak.TRAKer(
        model=model,
        task="image_classification",
        train_set_size=len(train[1]),
        save_dir=folder,
        device="cpu",
        projector=projectors.NoOpProjector(device="cpu"),
        use_half_precision=False,
        lambda_reg=RIDGE / sum(p.numel() for p in model.parameters()),  # they divide by its root
        logging_level=50,
    )
    for number, params in enumerate(checkpoints):
        traker.load_checkpoint({k: p.float() for k, p in params.items()}, model_id=number)
        traker.featurize(batch=list(train), num_samples=len(train[1]))
    traker.finalize_features()
    for number, params in enumerate(checkpoints):
        state = {k: p.float() for k, p in params.items()}
        traker.start_scoring_checkpoint("all", state, number, num_targets=len(targets[1]))
        traker.score(batch=list(targets), num_samples=len(targets[1]))
    found = np.array(traker.finalize_scores("all"))
    problem.model.module.double()
    return found


def factor_between(own, expected):
    """Theirs are divided by the mean entry of the kernel's inverse."""
    return (own * expected).sum() / np.square(expected).sum()


def assert_agree(own, expected):
    # Theirs are in single precision, with a kernel of a condition number of about 100.
    np.testing.assert_allclose(own, expected, rtol=2e-3, atol=2e-4 * np.abs(own).max())


def test_scores_of_a_checkpoint_are_minus_theirs(problem, tmp_path):
    params = moved(problem, 0)
    own, expected = scores(problem, params).task_influence, -theirs(problem, [params], tmp_path)
    factor = factor_between(own, expected)
    assert factor > 0
    assert_agree(own, factor * expected)


def test_scores_of_several_checkpoints_are_minus_theirs(problem, tmp_path):
    """Weights and products are averaged by themselves; the plain mean of the scores is another."""
    checkpoints = [moved(problem, seed) for seed in range(3)]
    each = []
    for number, params in enumerate(checkpoints):
        one = scores(problem, params)
        alone = -theirs(problem, [params], tmp_path / str(number))
        products = one.factored.task_products / factor_between(one.task_influence, alone)
        each.append(replace(one, factored=replace(one.factored, task_products=products)))
    own = averaged_scores("trak", each).task_influence
    expected = -theirs(problem, checkpoints, tmp_path / "all")
    assert_agree(own, expected)
    plain = np.mean([one.factored.task_influence for one in each], axis=0)
    assert np.abs(plain - expected).max() > 0.01 * np.abs(expected).max()


def test_a_learner_that_adapts_gives_other_scores(problem):
    """The comparison would notice it."""
    adapting = small_problem(
        {"influence.method": "trak", "influence.damping": RIDGE / N_TASKS},
        learner=MAML(0.3, 2),
        n_tasks=N_TASKS,
        n=2,
        m=1,
    )
    params = moved(problem, 0)
    one, other = (scores(p, params).task_influence for p in (problem, adapting))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.99
