"""Removal by influence, against retraining on a problem with a closed form."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.func import jacfwd

from metaaudit.bilevel import (
    FirstOrder,
    Objective,
    Reptile,
    TotalHessian,
    Unrolled,
    over_tasks,
    total_gradients,
    weight_derivatives,
)
from metaaudit.config.influence import InfluenceConfig
from metaaudit.editing import Jacobian, removal_step
from metaaudit.influence import weight_gradient
from metaaudit.learners import MAML
from metaaudit.pruning import PruneItem, PrunePlan
from metaaudit.pruning.plan import Counts
from tests.bilevel.convex import DELTA, OBJECTIVE, RHO, ClosedForm, batching, tasks
from tests.bilevel.small_networks import (
    INVERSES,
    gaussian,
    implicit,
    ragged_tasks,
    random_tasks,
    small_mlp,
)
from tests.bilevel.small_networks import batching as network_batching
from tests.bilevel.test_influence_of_learners import DELTA as LEARNER_DELTA
from tests.bilevel.test_influence_of_learners import adaptation as at_rest
from tests.bilevel.test_influence_of_learners import rested

FIELDS = {"fomaml": FirstOrder, "reptile": lambda *parts: Reptile(*parts, 0.6)}
EXACT = {"curvature": "exact", "solver": "cg", "tolerance": 1e-13}


def plan_of(*places):
    """A plan that drops tasks, by id, or instances, by place."""
    items = []
    for place in places:
        task_id, name, index = place if isinstance(place, tuple) else (place, None, None)
        given = {"task_id": task_id, "set": name, "index": index, "score": 1.0}
        items.append(PruneItem(kind="drop", **given))
    none = dict.fromkeys(Counts.model_fields, 0)
    return PrunePlan(
        run="run",
        tasks_sha256="",
        drop="instances" if isinstance(places[0], tuple) else "tasks",
        by="influence",
        max_fraction=1.0,
        min_per_class=1,
        counts=Counts(**none),
        items=tuple(items),
    )


class Stages:
    """What ``removal_step`` asks of the stages of an audit."""

    def __init__(self, training_adaptation, weight_decay, **settings):
        self.training_adaptation = training_adaptation
        training = SimpleNamespace(weight_decay=weight_decay)
        self.config = SimpleNamespace(influence=InfluenceConfig(**settings), training=training)
        self.stage = lambda *_: contextlib.nullcontext()

    @property
    def problem(self):
        return SimpleNamespace(config=self.config, train=self.training_adaptation().task_set)

    def gradients(self, adaptation):
        return total_gradients(adaptation)

    def tensor(self, array):
        return torch.from_numpy(array)

    def step(self, *places, damping=0.0):
        """What editing adds to the parameters."""
        return removal_step(self, plan_of(*places), damping).direction[0].numpy()


class Trained(Stages):
    """The convex problem at the minimum of F."""

    def __init__(self, n_tasks=8, n=12, m=6, derivative="unrolled", **settings):
        super().__init__(self.adaptation, DELTA, **{**EXACT, **settings})
        self.n_tasks, self.n, self.m = n_tasks, n, m
        self.task_set = tasks(n_tasks, n, m, seed=0)
        self.closed = ClosedForm(self.task_set, tasks(2, n, m, seed=100, prefix="eval"))
        self.start = self.closed.minimum()
        self.params = {"theta": torch.from_numpy(self.start)}
        self.derivative = derivative

    def adaptation(self):
        if self.derivative == "unrolled":
            return Unrolled(OBJECTIVE, self.params, self.task_set, batching())
        return implicit(OBJECTIVE, self.params, self.task_set, self.derivative, rho=RHO)

    def retrained(self, k, weight, place=None):
        """The minimum where the weight of a task, or of one of its instances, is another."""
        a, w, v = 1.0, np.ones(self.n), np.ones(self.m)
        if place is None:
            a = weight
        else:
            (w if place[0] == "support" else v)[place[1]] = weight
        return self.closed.minimum({k: (a, w, v)})

    def slope(self, k, place=None, step=1e-4):
        """``- d lambda / d omega``, by finite differences: removal lowers the weight."""
        above, below = (self.retrained(k, 1 + sign * step, place) for sign in (1, -1))
        return -(above - below) / (2 * step)


PLACES = [(0, None), (3, ("query", 5)), (3, ("query", 0)), (7, ("support", 0)), (5, ("support", 9))]


@pytest.mark.parametrize("derivative", ["unrolled", "dense", "ggn"])
def test_the_step_is_the_derivative_of_the_retrained_parameters(derivative):
    trained = Trained(derivative=derivative)
    for k, place in PLACES:
        task_id = trained.task_set.task_ids[k]
        step = trained.step(task_id if place is None else (task_id, *place))
        np.testing.assert_allclose(step, trained.slope(k, place), rtol=1e-5, atol=1e-8)


def test_steps_of_several_places_add_up():
    trained = Trained()
    first, second, *_ = trained.task_set.task_ids
    both = trained.step(first, second)
    np.testing.assert_allclose(both, trained.step(first) + trained.step(second), rtol=1e-9)
    places = [(first, "query", 1), (first, "support", 2), (second, "query", 0)]
    together = trained.step(*places)
    np.testing.assert_allclose(together, sum(map(trained.step, places)), rtol=1e-9)


def test_removing_all_queries_of_a_task_is_removing_the_task():
    trained = Trained()
    task_id = trained.task_set.task_ids[2]
    queries = [(task_id, "query", index) for index in range(trained.m)]
    np.testing.assert_allclose(trained.step(*queries), trained.step(task_id), rtol=1e-9)


def test_an_edit_is_much_nearer_to_retraining_than_no_edit():
    trained = Trained(n_tasks=40, n=20, m=20)
    ids = trained.task_set.task_ids
    removed = [3, 17]
    retrained = trained.closed.minimum(dict.fromkeys(removed, (0.0, None, None)))
    edited = trained.start + trained.step(*(ids[k] for k in removed))
    before = np.linalg.norm(retrained - trained.start)
    assert np.linalg.norm(retrained - edited) < 0.2 * before


@pytest.mark.parametrize("curvature", ["task-fisher", "ggn", "exact"])
def test_the_damping_is_that_of_the_run(curvature):
    trained = Trained(curvature=curvature, solver="auto", damping="auto")
    task_id = trained.task_set.task_ids[0]
    norms = [np.linalg.norm(trained.step(task_id, damping=damping)) for damping in (0.1, 1e3)]
    assert norms[1] < 0.01 * norms[0]
    rest = trained.step(task_id, damping=1e3) * (1e3 + DELTA)
    gradient = total_gradients(trained.training_adaptation()).gradients[0] / trained.n_tasks
    np.testing.assert_allclose(rest, gradient, rtol=0.05)


@pytest.mark.parametrize("name", ["maml", "meta-sgd", "fomaml", "reptile"])
def test_the_step_is_the_derivative_of_where_training_rests(name):
    case, resting = rested(name)
    params = case.layout.unflatten(resting, case.start)
    form = "jacobian" if name in FIELDS else "exact"
    settings = {"curvature": form, "tolerance": 1e-12, "max_iterations": 300}
    stages = Stages(
        lambda: at_rest(name, case.objective, params, case.train), LEARNER_DELTA, **settings
    )
    places = {0: ("t3",), 1: ("t2", "support", 1), 2: ("t4", "query", 3)}
    for part, place in places.items():
        index = (int(place[0][1:]), *place[2:])
        ends = []
        for sign in (1, -1):
            weights = case.weights()
            weights[part][index] += sign * 1e-4
            ends.append(case.rest(*weights, resting))
        slope = -(ends[0] - ends[1]).numpy() / 2e-4
        step = stages.step(place[0] if part == 0 else place)
        assert np.linalg.norm(step - slope) < 1e-4 * np.linalg.norm(slope)


def adaptation(kind, task_set):
    """A small network's adaptation, of one kind after the other."""
    model = small_mlp()
    objective, params = Objective(model, MAML(0.3, 2)), model.initial()
    if kind in INVERSES:
        return implicit(objective, params, task_set, kind, rho=2.0)
    return FIELDS.get(kind, Unrolled)(objective, params, task_set, network_batching(2))


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", ["unrolled", *FIELDS, *sorted(INVERSES.keys() - {"cg"})])
def test_weight_gradients_are_those_that_influence_multiplies(kind, ragged):
    found = adaptation(kind, ragged_tasks() if ragged else random_tasks())
    marked = np.random.default_rng(0).random(found.task_set.n_instances) < 0.3
    assert 0 < marked.sum() < len(marked)
    direction = gaussian(found.layout.size)
    along = weight_derivatives(found, direction)[marked].sum()
    assert float(direction @ weight_gradient(found, marked)) == pytest.approx(along, rel=1e-7)


@pytest.mark.parametrize("kind", FIELDS)
def test_the_jacobian_of_a_field_is_not_the_transposed_one(kind):
    found = adaptation(kind, random_tasks())
    (batch,) = network_batching().batches(found.task_set)

    def mean_field(flat):
        params = found.layout.unflatten(flat, found.params)
        return found.layout.flatten(over_tasks(found.field, params, batch.data)).mean(0)

    expected = jacfwd(mean_field)(found.layout.flatten(found.params))
    eye = torch.eye(found.layout.size, dtype=torch.float64)
    product = Jacobian(found, "jacobian", shift=0.5)(eye)  # its rows are those of the transpose
    torch.testing.assert_close(product, expected.T + 0.5 * eye)
    transposed = TotalHessian(found, "jacobian", shift=0.5)(eye)
    torch.testing.assert_close(transposed, product.T)
    assert not torch.allclose(product, transposed)
