"""One pass that records what enters and leaves each layer, and changes nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad
from torch.nn.functional import cross_entropy

from metaaudit.curvature import Network, fisher_terms, record_tasks
from metaaudit.errors import ModelError
from metaaudit.models import Model
from tests.curvature.dense import assert_close, entry_indices, flat_gradients, passes
from tests.curvature.networks import CLASSES, CLASSIFIERS, NETWORKS, Case, gaussian

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

FISHERS = ["empirical", "true"]
RUNNING_IN_TRAINING = [name for name in CLASSIFIERS if name.endswith("training")]


def recorded(module, x, y, fisher="empirical"):
    network = Network.of(module, x)
    return network.record(network.parameters, x, y, fisher_terms(cross_entropy, fisher))


@pytest.mark.parametrize("fisher", FISHERS)
@pytest.mark.parametrize("name", NETWORKS | CLASSIFIERS)
def test_record_is_what_autograd_sees_at_each_layer(name, fisher):
    case = (NETWORKS | CLASSIFIERS)[name]
    (x, y) = case.data()
    record = recorded(case.module(), x, y, fisher)
    for path, (a, g) in passes(case.module(), x, y, fisher).items():
        assert_close(record.activations[path], a)
        assert_close(record.gradients[path], g)


@pytest.mark.parametrize("fisher", FISHERS)
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name not in RUNNING_IN_TRAINING])
def test_record_of_tasks_is_the_record_of_each(name, fisher):
    case, terms = CLASSIFIERS[name], fisher_terms(cross_entropy, fisher)
    data = [case.data(n=5, seed=seed) for seed in range(3)]
    network = Network.of(case.module(), data[0][0])
    params = [
        {key: p + 0.1 * gaussian(*p.shape, seed=seed) for key, p in network.parameters.items()}
        for seed in range(3)
    ]
    theta = {key: torch.stack([own[key] for own in params]) for key in params[0]}
    inputs, labels = (torch.stack(part) for part in zip(*data, strict=True))
    labels = (labels + torch.arange(3)[:, None]) % CLASSES
    found = record_tasks(network, theta, inputs, labels, terms)
    for task, own in enumerate(params):
        alone = network.record(own, inputs[task], labels[task], terms)
        for path in network.layers:
            assert_close(found.activations[path][task], alone.activations[path])
            assert_close(found.gradients[path][task], alone.gradients[path])


def test_record_knows_its_size():
    record = recorded(NETWORKS["linear"].module(), *NETWORKS["linear"].data(7), "true")
    assert record.nbytes == 8 * (7 * (4 + 1) + CLASSES * 7 * CLASSES)


class AcrossTheBatch(nn.Module):
    """A batch normalisation after a linear layer whose weight may be another for every sample."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, CLASSES)

    def forward(self, inputs):
        return self.last(torch.tanh(self.norm(self.first(inputs))))

    def with_own_weights(self, weights, inputs):
        """The same, with ``weights [n, outputs, inputs + 1]``."""
        with_one = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
        hidden = torch.einsum("noi,ni->no", weights, with_one)
        centred = hidden - hidden.mean(0)
        scaled = centred / (centred.square().mean(0) + self.norm.eps).sqrt()
        return self.last(torch.tanh(scaled * self.norm.weight + self.norm.bias))


def test_batch_statistics_lead_from_one_sample_to_the_loss_of_another():
    """The gradient of a sample is the derivative of all losses in its use of the weight."""
    case = Case(AcrossTheBatch, (4,), train=True)
    module, (x, y) = case.module(), case.data()
    weights = torch.cat([module.first.weight, module.first.bias[:, None]], 1).detach()
    expected = grad(lambda w: cross_entropy(module.with_own_weights(w, x), y, reduction="sum"))(
        weights.expand(len(x), -1, -1).clone()
    )
    record = recorded(module, x, y)
    a, g = record.activations["first"], record.gradients["first"]
    assert_close(torch.einsum("ngpo,ngpi->noi", g[0], a), expected)


def test_in_place_activations_give_the_same_record():
    def build(inplace):
        return nn.Sequential(
            nn.Conv2d(1, 2, 2),
            nn.ReLU(inplace),
            nn.Flatten(),
            nn.Linear(8, 6, bias=False),
            nn.LayerNorm(6),
            nn.ELU(inplace=inplace),
            nn.Linear(6, CLASSES),
            nn.LeakyReLU(inplace=inplace),
        )

    (x, y) = Case(nn.Identity, (1, 3, 3)).data()
    found, expected = (
        recorded(Case(lambda i=inplace: build(i), (1, 3, 3)).module(), x, y, "true")
        for inplace in (True, False)
    )
    for path in expected.activations:
        assert_close(found.activations[path], expected.activations[path])
        assert_close(found.gradients[path], expected.gradients[path])


def test_batch_norm_of_a_model_is_covered():
    module = Model(NETWORKS["batch norm"].module().train(), "").module
    x, y = NETWORKS["batch norm"].data()
    network = Network.of(module, x)
    assert list(network.layers) == ["0", "1", "4", "5", "6"]
    record = recorded(module, x, y)
    # Nothing follows that mixes samples: what reaches this layer is its own sample's.
    a, g = record.activations["6"], record.gradients["6"]
    expected = flat_gradients(module, x, y)[:, entry_indices(module, "6")]
    assert_close(torch.einsum("ngpo,ngpi->ngoi", g[0], a), expected)
    # Of the layers before, only the sum over the batch is that of the loss.
    total = flat_gradients(module, x, y).sum(0)
    for path in network.layers:
        a, g = record.activations[path], record.gradients[path]
        found = torch.einsum("ngpo,ngpi->goi", g[0], a)
        assert_close(found, total[entry_indices(module, path)])


def test_frozen_layers_are_left_out_and_still_used():
    module, (x, y) = NETWORKS["mlp"].module(), NETWORKS["mlp"].data()
    module[2].requires_grad_(False)
    network = Network.of(module, x)
    assert list(network.layers) == ["0", "4"]
    assert list(network.parameters) == ["0.weight", "0.bias", "4.weight", "4.bias"]
    a, g = (part["0"] for part in vars(recorded(module, x, y)).values())
    expected = flat_gradients(module, x, y)[:, entry_indices(module, "0")]
    assert_close(torch.einsum("ngpo,ngpi->ngoi", g[0], a), expected)


def test_inputs_need_not_be_floating():
    module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, CLASSES)).double()
    module[0].requires_grad_(False)
    x, y = torch.arange(14).reshape(7, 2) % 9, torch.arange(7) % CLASSES
    record = recorded(module, x, y)
    embedded = module[0](x).flatten(1)
    assert_close(record.activations["2"][:, 0, 0, :-1], embedded)


# Nothing changes


def everything(module):
    return (
        {name: value.clone() for name, value in module.state_dict().items()},
        {name: (p.requires_grad, p.grad) for name, p in module.named_parameters()},
        {path: (part.training, len(part._forward_hooks)) for path, part in module.named_modules()},
    )


def assert_unchanged(module, before):
    state, *rest = everything(module)
    assert rest == list(before[1:])
    assert all(torch.equal(value, before[0][name]) for name, value in state.items())


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_module_stays_as_it_was(name, train):
    module = NETWORKS[name].module().train(train)
    before = everything(module)
    recorded(module, *NETWORKS[name].data(), "true")
    assert_unchanged(module, before)


@pytest.mark.parametrize("name", RUNNING_IN_TRAINING)
def test_running_statistics_do_not_move(name):
    module = CLASSIFIERS[name].module()
    before = everything(module)
    recorded(module, *CLASSIFIERS[name].data())
    assert_unchanged(module, before)


class Fails(nn.Module):
    def forward(self, inputs):
        raise ZeroDivisionError


def test_module_stays_as_it_was_after_an_error():
    module, (x, y) = NETWORKS["batch norm"].module().train(), NETWORKS["batch norm"].data()
    network, before = Network.of(module, x), everything(module)

    def terms(outputs, labels):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        network.record(network.parameters, x, y, terms)
    assert_unchanged(module, before)
    failing = nn.Sequential(*module, Fails())
    before = everything(failing)
    with pytest.raises(ZeroDivisionError):
        Network.of(failing, x)
    assert_unchanged(failing, before)


def test_hooks_of_others_stay():
    module, (x, y) = NETWORKS["linear"].module(), NETWORKS["linear"].data()
    called = []
    module.register_forward_hook(lambda *_: called.append(1))
    recorded(module, x, y)
    assert len(called) == 2
    module(x)
    assert len(called) == 3


# What is refused


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, inputs):
        return self.last(self.inner(torch.tanh(self.inner(inputs))))


class Unused(Twice):
    def forward(self, inputs):
        return self.last(inputs)


class Folded(Twice):
    """Lays positions beside samples."""

    def forward(self, inputs):
        return self.last(inputs.reshape(-1, 2, 2, 4).flatten(0, 1)).mean(1).reshape(-1, 2, 3)[:, 0]


def shared_module():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(4, CLASSES))


def tied_weights():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, CLASSES))
    module[2].weight = module[0].weight
    return module


def partly_frozen():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, CLASSES))
    module[1].weight.requires_grad_(False)
    return module


REFUSED = {
    "called twice": (Twice, "layer inner: is called 2 times in a forward pass; expected once"),
    "not called": (Unused, "layer inner: is called 0 times"),
    "shared module": (shared_module, "parameter 2.weight: is the same tensor as 0.weight"),
    "tied weights": (tied_weights, "parameter 2.weight: is the same tensor as 0.weight"),
    "partly frozen": (partly_frozen, "layer 1: has weight frozen and the rest not"),
    "frozen": (lambda: nn.Linear(4, 3).requires_grad_(False), "has no parameters to train"),
    "no parameters": (nn.Tanh, "has no parameters to train"),
    "unsupported": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.PReLU()),
        "layer 1: is a PReLU with parameters of its own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_refused(name):
    build, message = REFUSED[name]
    with pytest.raises(ModelError, match=rf"^model.*{message}"):
        Network.of(build().double(), gaussian(7, 4))


def test_samples_must_come_first():
    with pytest.raises(ModelError, match=r"layer last: gives \[10, 2, 3\] for 5 inputs"):
        module = Folded().double()
        module.inner.requires_grad_(False)
        Network.of(module, gaussian(5, 4, 4))


def test_running_statistics_are_those_of_the_module():
    module, (x, y) = NETWORKS["batch norm"].module(), NETWORKS["batch norm"].data()
    other = copy.deepcopy(module)
    other[1].running_mean.add_(1.0)
    with torch.no_grad():
        expected = functional_call(other[:2], {}, (x,))
    a = recorded(other, x, y).activations["1"]
    plain = (expected - other[1].bias[:, None, None]) / other[1].weight[:, None, None]
    assert_close(a[..., 0], plain.flatten(2))
