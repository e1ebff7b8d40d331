"""Sums of outer products against the gradients of every kind of layer, and which are refused."""

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from metaaudit.curvature.layers import layer_of
from metaaudit.curvature.network import Network
from metaaudit.errors import ModelError
from tests.curvature.dense import assert_close, entry_indices, flat_gradients, trained
from tests.curvature.networks import CLASSES, CLASSIFIERS, LAYERS, NETWORKS, gaussian

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def at_label(outputs, labels):
    """One term, by hand: the gradient of cross-entropy."""
    return (outputs.softmax(-1) - one_hot(labels, CLASSES))[None]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_sums_over_positions_are_the_gradients_of_each_sample(name):
    case = CLASSIFIERS[name]
    module, (x, y) = case.module(), case.data()
    network = Network.of(module, x)
    record = network.record(network.parameters, x, y, at_label)
    expected = flat_gradients(module, x, y)
    assert list(network.layers) == ["0", "3"]
    for path in network.layers:
        a, g = record.activations[path], record.gradients[path]
        found = torch.einsum("tngpo,ngpi->ngoi", g, a)
        assert_close(found, expected[:, entry_indices(module, path)])


@pytest.mark.parametrize("name", NETWORKS)
def test_so_they_are_in_networks_of_several_layers(name):
    module, (x, y) = NETWORKS[name].module(), NETWORKS[name].data()
    network = Network.of(module, x)
    record = network.record(network.parameters, x, y, at_label)
    expected = flat_gradients(module, x, y)
    covered = []
    for path in network.layers:
        indices = entry_indices(module, path)
        found = torch.einsum("tngpo,ngpi->ngoi", record.gradients[path], record.activations[path])
        assert_close(found, expected[:, indices])
        covered += indices.flatten().tolist()
    assert sorted(covered) == list(range(expected.shape[1]))


@pytest.mark.parametrize("name", LAYERS)
def test_matrix_holds_the_parameters_in_their_places(name):
    module = LAYERS[name].module()
    flat = torch.cat([p.flatten() for p in trained(module).values()])
    layer = layer_of("", module)
    assert torch.equal(layer.matrix(trained(module)), flat[entry_indices(module, "")])


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_parameters_come_back_from_their_matrix(name, leading):
    module = LAYERS[name].module()
    layer = layer_of("", module)
    params = {key: gaussian(*leading, *p.shape) for key, p in trained(module).items()}
    matrix = layer.matrix(params)
    assert matrix.shape == (*leading, layer.groups, layer.outputs, layer.inputs)
    back = layer.parameters(matrix)
    assert back.keys() == params.keys()
    for key, p in params.items():
        assert torch.equal(back[key], p)


@pytest.mark.parametrize("name", LAYERS)
def test_only_normalisations_are_diagonal(name):
    layer = layer_of("", LAYERS[name].module())
    assert layer.diagonal == ("norm" in name)


def test_names_carry_the_path():
    layer = layer_of("blocks.0.conv", nn.Conv2d(2, 3, 1))
    assert (layer.weight, layer.bias) == ("blocks.0.conv.weight", "blocks.0.conv.bias")
    assert layer_of("fc", nn.Linear(2, 3, bias=False)).bias is None
    assert layer_of("", nn.Linear(2, 3)).weight == "weight"


@pytest.mark.parametrize(
    "module",
    [
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(3, affine=False),
        nn.InstanceNorm2d(3),
        nn.Linear(3, 4).requires_grad_(False),
        nn.ConvTranspose2d(1, 2, 3).requires_grad_(False),
        nn.Sequential(nn.Linear(3, 4)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_has_nothing_of_its_own_to_train_is_no_layer(module):
    assert layer_of("path", module) is None


class Scaled(nn.Linear):
    """A linear layer with one parameter more."""

    def __init__(self):
        super().__init__(3, 4)
        self.scale = nn.Parameter(torch.ones(4))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


UNSUPPORTED = {
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(1, 2, 3),
    "Conv1d": lambda: nn.Conv1d(1, 2, 3),
    "Embedding": lambda: nn.Embedding(3, 4),
    "LSTM": lambda: nn.LSTM(3, 4),
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2),
    "PReLU": nn.PReLU,
    "RMSNorm": lambda: nn.RMSNorm(4),
    "Scaled": Scaled,
    "Bare": Bare,
    "ParametrizedLinear": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_modules_with_parameters_are_refused(name):
    expected = f"^model, layer a.b: is a {name} with parameters .* expected Linear, Conv2d and norm"
    with pytest.raises(ModelError, match=expected):
        layer_of("a.b", UNSUPPORTED[name]())


def test_partly_frozen_layer_is_refused():
    layer = nn.Linear(3, 4)
    layer.bias.requires_grad_(False)
    with pytest.raises(ModelError, match=r"layer fc: has bias frozen and the rest not"):
        layer_of("fc", layer)


@pytest.mark.parametrize("norm", ["batch norm", "batch norm, training", "instance norm, running"])
def test_normalised_activations_leave_the_module_alone(norm):
    module = LAYERS[norm].module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    layer = layer_of("", module)
    x, _ = LAYERS[norm].data()
    first = layer.activations(x)
    assert torch.equal(layer.activations(x), first)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())
