"""Learners whose head is adapted or computed: against their papers' formulas, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad
from torch.nn.functional import cross_entropy, one_hot

from metaaudit.bilevel import Objective, TaskTensors
from metaaudit.config.learner import AnilConfig, MamlConfig, ProtonetConfig, RidgeConfig
from metaaudit.errors import ModelError
from metaaudit.learners import ANIL, MAML, MetaSGD, ProtoNet, Ridge, build_learner
from metaaudit.models import Head, Model
from tests.bilevel.small_networks import FEATURES, HIDDEN, gaussian, small_mlp

N, M, OUTPUTS, RATE, STEPS = 7, 4, 5, 0.3, 3
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2])  # three classes for five outputs


def data(labels=LABELS):
    return TaskTensors(gaussian(N, FEATURES), labels, gaussian(M, FEATURES, seed=1), labels[:M])


def weights():
    return gaussian(N, seed=2).abs() + 0.1


@pytest.fixture
def model():
    return small_mlp(outputs=OUTPUTS)


@pytest.fixture
def head(model):
    return Head.of(model, (FEATURES,))


def adapted(learner, model, w=None, task=None):
    params = learner.meta_parameters(model.initial())
    task = data() if task is None else task
    ones = torch.ones(N, dtype=torch.float64)
    return Objective(model, learner).adapt(params, ones if w is None else w, task)


def test_a_head_is_the_last_linear_layer_and_shares_the_parameters(model, head):
    assert (head.name, head.ways) == ("2", OUTPUTS)
    own = {id(p) for p in model.module.parameters()}
    assert {id(p) for p in head.features.module.parameters()} < own
    params, x = model.initial(), gaussian(3, FEATURES)
    features = head.features(params, x)
    assert features.shape == (3, HIDDEN)
    outputs = features @ params[head.weight].T + params[head.bias]
    torch.testing.assert_close(outputs, model(params, x))
    assert set(head.without(params)) == {"0.weight", "0.bias"}


def test_buffers_that_are_loaded_later_are_seen_by_the_features():
    layers = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, OUTPUTS)).double()
    layers[0].register_buffer("constant", torch.zeros(1))
    model = Model(layers, "")
    features = Head.of(model, (FEATURES,)).features.module
    model.module[0].constant.fill_(3.0)
    assert float(features[0].constant) == 3.0


@pytest.mark.parametrize(
    ("layers", "name", "message"),
    [
        ([nn.Linear(3, 4), nn.Linear(4, 2), nn.Softmax(1)], None, "'1' is not the last operation"),
        ([nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)], "0", "'0' is not the last operation"),
        ([nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)], "1", "'1' is a ReLU"),
        ([nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)], "top", "'top' is no layer of the model"),
        ([nn.Linear(3, 4), nn.Linear(4, 2, bias=False)], None, "'1' is a Linear without a bias"),
        ([nn.Conv1d(3, 2, 1), nn.Flatten()], None, "has no linear layer"),
    ],
)
def test_a_network_without_such_a_layer_is_refused(layers, name, message):
    model = Model(nn.Sequential(*layers), "")
    with pytest.raises(ModelError, match=message):
        Head.of(model, (3, 1) if "Conv" in str(layers) else (3,), name)


def test_a_single_layer_has_nothing_before_it():
    with pytest.raises(ModelError, match="is the whole model"):
        Head.of(Model(nn.Linear(3, 2), ""), (3,))


def test_anil_is_gradient_descent_on_the_head_alone(model, head):
    theta = adapted(ANIL(RATE, STEPS, head), model, weights())
    expected, task = model.initial(), data()
    for _ in range(STEPS):

        def inner(params):
            losses = cross_entropy(model(params, task.support_x), LABELS, reduction="none")
            return (weights() * losses).mean()

        slope = grad(inner)(expected)
        expected = {
            name: p - RATE * slope[name] if name.startswith("2.") else p
            for name, p in expected.items()
        }
    torch.testing.assert_close(theta, expected)


def test_meta_sgd_with_equal_rates_is_maml(model):
    theta = adapted(MetaSGD(RATE, STEPS), model, weights())
    torch.testing.assert_close(theta, adapted(MAML(RATE, STEPS), model, weights()))


def test_meta_sgd_has_a_rate_for_every_parameter(model):
    learner = MetaSGD(RATE, 1)
    params = learner.meta_parameters(model.initial())
    assert list(params)[-4:] == ["lrs.0", "lrs.1", "lrs.2", "lrs.3"]
    assert all(bool((params[f"lrs.{n}"] == RATE).all()) for n in range(4))
    params["lrs.2"] = torch.zeros_like(params["lrs.2"])
    ones = torch.ones(N, dtype=torch.float64)
    theta = Objective(model, learner).adapt(params, ones, data())
    assert list(theta) == list(model.initial())
    assert torch.equal(theta["2.weight"], params["2.weight"])
    assert not torch.equal(theta["2.bias"], params["2.bias"])


def test_protonet_is_a_softmax_over_squared_distances_to_weighted_means(model, head):
    w, task = weights(), data()
    theta = adapted(ProtoNet(head), model, w)
    params = model.initial()
    support, query = (head.features(params, x) for x in (task.support_x, task.query_x))
    means = torch.stack(
        [
            (w[c == LABELS, None] * support[c == LABELS]).sum(0) / w[c == LABELS].sum()
            for c in range(3)
        ]
    )
    expected = (-(torch.cdist(query, means) ** 2)).log_softmax(1)
    found = model(theta, task.query_x).log_softmax(1)
    torch.testing.assert_close(found[:, :3], expected)
    assert bool((found[:, 3:] < -1e29).all())  # classes that the task has not


def test_a_prototype_without_instances_is_the_mean_of_the_others(model, head):
    w = weights()
    w[LABELS == 1] = 0.0
    theta = adapted(ProtoNet(head), model, w)
    # Weights and biases are relative to the mean.
    assert float(theta[head.weight][1].abs().max()) < 1e-12
    assert float(theta[head.bias][1]) == pytest.approx(0.0, abs=1e-12)
    assert float(theta[head.weight][0].abs().max()) > 1e-3


def test_large_features_lose_no_precision():
    """Wide features far from the origin, as ReLU gives them: distances are small differences."""
    generator = torch.Generator().manual_seed(0)
    x = 10 + torch.randn(20, 1600, generator=generator)
    labels = torch.arange(20) % 5
    layers = nn.Sequential(nn.Identity(), nn.Linear(1600, 5))
    losses = {}
    for dtype in (torch.float32, torch.float64):
        model = Model(layers.to(dtype), "")
        learner = ProtoNet(Head.of(model, (1600,)))
        params = learner.meta_parameters(model.initial())
        task = TaskTensors(x.to(dtype), labels, (x + 0.1).flip(0).to(dtype), labels)
        objective = Objective(model, learner)
        theta = objective.adapt(params, torch.ones(20, dtype=dtype), task)
        losses[dtype] = objective.losses(theta, task.query_x, labels).double()
    torch.testing.assert_close(losses[torch.float32], losses[torch.float64], rtol=1e-4, atol=1e-3)


def test_a_head_that_shares_its_weights_is_refused():
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    layers[2].weight = layers[0].weight
    with pytest.raises(ModelError, match=r"'2' shares its parameters \(0\.weight, 2\.weight"):
        Head.of(Model(layers, ""), (4,))


def test_ridge_is_the_closed_form(model, head):
    l2, scale, w, task = 0.3, 2.5, weights(), data()
    theta = adapted(Ridge(l2, scale, head), model, w)
    features = head.features(model.initial(), task.support_x)
    rows = torch.cat([features, torch.ones(N, 1, dtype=torch.float64)], 1)
    targets = one_hot(LABELS, OUTPUTS).double()
    normal = rows.T @ (w[:, None] * rows) / N + l2 * torch.eye(HIDDEN + 1, dtype=torch.float64)
    solution = scale * torch.linalg.solve(normal, rows.T @ (w[:, None] * targets) / N)
    torch.testing.assert_close(theta[head.weight], solution[:-1].T)
    torch.testing.assert_close(theta[head.bias][:3], solution[-1, :3])
    assert bool((theta[head.bias][3:] < -1e29).all())


def test_ridge_has_penalty_and_scale_among_its_meta_parameters(model, head):
    learner = Ridge(0.3, 2.5, head)
    params = learner.meta_parameters(model.initial())
    assert list(params) == ["0.weight", "0.bias", "ridge.log_l2", "ridge.log_scale"]
    assert learner.own == ("ridge.log_l2", "ridge.log_scale")
    assert float(params["ridge.log_l2"].exp()) == pytest.approx(0.3)
    assert params["ridge.log_scale"].shape == ()


@pytest.mark.parametrize("kind", [ANIL, ProtoNet, Ridge])
def test_an_instance_of_weight_0_is_not_there(model, head, kind):
    options = {ANIL: (RATE, STEPS, head), ProtoNet: (head,), Ridge: (0.3, 2.0, head)}[kind]
    w = torch.ones(N, dtype=torch.float64)
    w[3] = 0.0
    task = data()
    changed = task._replace(support_x=task.support_x.clone())
    changed.support_x[3] += 10.0
    first, second = (adapted(kind(*options), model, w, one) for one in (task, changed))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", [ProtoNet, Ridge])
def test_derivatives_in_the_weights_are_finite_at_zero(model, head, kind):
    learner = kind(head) if kind is ProtoNet else kind(0.3, 2.0, head)
    params = learner.meta_parameters(model.initial())
    objective, task = Objective(model, learner), data()

    def loss(w):
        return objective.task_loss(params, w, torch.ones(M, dtype=torch.float64), task)

    w = torch.ones(N, dtype=torch.float64)
    w[0] = w[3] = 0.0  # all of class 0
    assert bool(grad(loss)(w).isfinite().all())
    assert bool(torch.func.jacfwd(grad(loss))(w).isfinite().all())


def test_built_from_a_configuration(model):
    shape = (FEATURES,)
    anil = build_learner(AnilConfig(name="anil", inner_lr=0.5, steps=7), model, shape)
    assert (anil.inner_lr, anil.steps, anil.head.name) == (0.5, 7, "2")
    ridge = build_learner(RidgeConfig(name="ridge", l2=3.0, scale=4.0, head="2"), model, shape)
    assert (ridge.l2, ridge.scale, ridge.head.name) == (3.0, 4.0, "2")
    assert isinstance(build_learner(ProtonetConfig(name="protonet"), model, shape), ProtoNet)
    with pytest.raises(ModelError, match=r"learner\.head: 'x' is no layer"):
        build_learner(ProtonetConfig(name="protonet", head="x"), model, shape)
    for name in ("maml", "fomaml", "reptile"):
        config = MamlConfig(name=name, inner_lr=0.5, steps=7)
        assert build_learner(config, model, shape) == MAML(0.5, 7)
    config = MamlConfig(name="meta-sgd", inner_lr=0.5, steps=7)
    assert build_learner(config, model, shape) == MetaSGD(0.5, 7)
