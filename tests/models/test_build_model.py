"""Built-in models and one's own."""

import pytest
import torch

from metaaudit.config.model import Conv4Config, FactoryConfig, MlpConfig
from metaaudit.errors import ModelError
from metaaudit.models import build_model

OWN = """
from torch import nn

def build(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 3))

def not_a_module():
    return 3

class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.inner = nn.Linear(16, 3)
        self.function = function

    def forward(self, x):
        return self.function(self.inner(x.flatten(1)))

def functional_norm():
    return Calls(lambda y: nn.functional.batch_norm(y, None, None, training=True))

def functional_layer_norm():
    return Calls(lambda y: nn.functional.layer_norm(y, (3,)))

def item():
    return Calls(lambda y: y * y.sum().item())

def pair():
    return Calls(lambda y: (y, y))

def frozen():
    return Calls(lambda y: y).requires_grad_(False)
"""


@pytest.mark.parametrize(
    ("config", "shape", "features"),
    [
        (Conv4Config(name="conv4", hidden=8), (1, 28, 28), 8),
        (Conv4Config(name="conv4", hidden=8, downsample="max_pool"), (1, 28, 28), 8),
        (
            Conv4Config(name="conv4", hidden=8, in_channels=3, downsample="max_pool"),
            (3, 84, 84),
            8 * 25,
        ),
        (Conv4Config(name="conv4", hidden=6, norm="group"), (1, 8, 8), 6),
        (Conv4Config(name="conv4", hidden=32, norm="group"), (1, 8, 8), 32),
    ],
)
def test_conv4_fits_its_images(config, shape, features):
    model = build_model(config, input_shape=shape, ways=5)
    assert model.initial()["head.weight"].shape == (5, features)
    assert model(model.initial(), torch.zeros(4, *shape)).shape == (4, 5)


def test_mlp_takes_inputs_of_any_shape():
    model = build_model(MlpConfig(name="mlp", hidden=[7]), input_shape=(2, 3), ways=5)
    assert [tuple(p.shape) for p in model.initial().values()] == [(7, 6), (7,), (5, 7), (5,)]


def test_initial_weights_come_from_the_seed_alone():
    def weights(seed):
        return build_model(MlpConfig(name="mlp"), input_shape=(4,), ways=5, seed=seed).initial()

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["1.weight"], other["1.weight"])
    assert torch.equal(state, torch.get_rng_state())


def test_a_factory_from_a_folder(tmp_path):
    (tmp_path / "own_network.py").write_text(OWN)
    config = FactoryConfig(factory="own_network:build", path=tmp_path, args={"width": 6})
    model = build_model(config, input_shape=(1, 4, 4), ways=3)
    assert model(model.initial(), torch.zeros(2, 1, 4, 4)).shape == (2, 3)
    first = model.source
    (tmp_path / "own_network.py").write_text(OWN + "\n# changed\n")
    assert build_model(config, input_shape=(1, 4, 4), ways=3).source != first


def test_the_source_of_every_class_in_the_model_counts(tmp_path):
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts" / "__init__.py").touch()
    block = tmp_path / "own_parts" / "block.py"
    block.write_text("from torch import nn\n\nclass Block(nn.Linear):\n    pass\n")
    (tmp_path / "own_parts" / "net.py").write_text(
        "from torch import nn\nfrom own_parts.block import Block\n\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), Block(16, 3))\n"
    )
    config = FactoryConfig(factory="own_parts.net:build")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        first = build_model(config, input_shape=(1, 4, 4), ways=3).source
        block.write_text(block.read_text() + "# changed\n")
        assert build_model(config, input_shape=(1, 4, 4), ways=3).source != first


@pytest.mark.parametrize(
    ("factory", "args", "message"),
    [
        ("no_such_module:build", {}, "no_such_module"),
        ("own_broken:no_such_name", {}, "no_such_name"),
        ("own_broken:build", {}, "width"),
        ("own_broken:not_a_module", {}, "returned a int"),
        ("own_broken:functional_norm", {}, "batch_norm.*third derivative is wrong"),
        ("own_broken:functional_layer_norm", {}, "layer_norm.*third derivative is wrong"),
        ("own_broken:item", {}, "cannot be differentiated"),
        ("own_broken:pair", {}, "gave tuple"),
        ("own_broken:frozen", {}, "frozen parameters, inner.weight first"),
    ],
)
def test_a_factory_that_fails_is_named(tmp_path, factory, args, message):
    (tmp_path / "own_broken.py").write_text(OWN)
    config = FactoryConfig(factory=factory, path=tmp_path, args=args)
    with pytest.raises(ModelError, match=message):
        build_model(config, input_shape=(1, 4, 4), ways=3)


@pytest.mark.parametrize(
    ("config", "shape", "ways", "message"),
    [
        (Conv4Config(name="conv4"), (3, 28, 28), 5, "in_channels"),
        (Conv4Config(name="conv4"), (64,), 5, "in_channels"),
        (Conv4Config(name="conv4", downsample="max_pool"), (1, 8, 8), 5, "nothing of 8x8"),
        (Conv4Config(name="conv4", ways=3), (1, 28, 28), 5, "5 classes"),
    ],
)
def test_models_that_do_not_fit_are_refused(config, shape, ways, message):
    with pytest.raises(ModelError, match=message):
        build_model(config, input_shape=shape, ways=ways)


@pytest.mark.parametrize("hidden", [8, 24, 32])
def test_group_norm_leaves_something_of_small_images(hidden):
    config = Conv4Config(name="conv4", hidden=hidden, norm="group")
    model = build_model(config, input_shape=(1, 8, 8), ways=5)
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model(model.initial(), images).std(dim=0).max() > 1e-3
