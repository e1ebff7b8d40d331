"""From a configuration to model and weights: buffers, second names, warnings."""

import json

import pytest
import torch

from metaaudit.config import load_config
from metaaudit.errors import CheckpointError
from metaaudit.inputs.checkpoints import read_checkpoint, write_checkpoint
from metaaudit.loading import load_weights, prepare
from tests.small import write_case

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.zeros(64))
        self.first = nn.Linear(64, 3)
        self.again = self.first

    def forward(self, x):
        return self.again(x.flatten(1) + self.shift)
"""


@pytest.fixture
def problem(tmp_path):
    (tmp_path / "own_buffered.py").write_text(OWN)
    changes = {"model": {"factory": "own_buffered:Net", "path": str(tmp_path)}}
    return prepare(load_config(write_case(tmp_path / "case", changes).config))


def tensors(**changes):
    first = {"first.weight": torch.ones(3, 64), "first.bias": torch.ones(3)}
    twin = {name.replace("first", "again"): p for name, p in first.items()}
    return {**first, **twin, "shift": torch.full((64,), 2.0), **changes}


def test_buffers_are_loaded_and_second_names_accepted(problem):
    write_checkpoint(problem.config.checkpoint, tensors(), {})
    weights = load_weights(problem)
    assert list(weights.params) == ["first.weight", "first.bias"]
    assert problem.model.module.shift.tolist() == [2.0] * 64
    assert problem.model.constants()["shift"].tolist() == [2.0] * 64


def test_only_the_second_name_will_do(problem):
    given = {name: p for name, p in tensors().items() if not name.startswith("first")}
    write_checkpoint(problem.config.checkpoint, given, {})
    assert load_weights(problem).params["first.bias"].tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "changes",
    [{"again.bias": torch.zeros(3)}, {"shift": torch.zeros(5)}],
    ids=["two values of one tensor", "buffer of another shape"],
)
def test_what_does_not_fit_is_named(problem, changes):
    write_checkpoint(problem.config.checkpoint, tensors(**changes), {})
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        load_weights(problem)


def test_a_recipe_that_differs_warns(scored_case):
    config = load_config(
        scored_case.config, ["learner.steps=9", "training.weight_decay=0.7", "compute.threads=1"]
    )
    warnings = load_weights(prepare(config)).warnings
    assert any("learner.steps is 9" in text for text in warnings)
    assert any("weight_decay is 0.7" in text for text in warnings)
    assert load_weights(prepare(load_config(scored_case.config))).warnings == ()


@pytest.mark.parametrize("recipe", ["not json", "[]", "{}", '{"learner": 3, "training": 4}'])
def test_a_recipe_from_elsewhere_is_no_error(scored_case, tmp_path, recipe):
    saved = read_checkpoint(load_config(scored_case.config).checkpoint)
    path = tmp_path / "other.safetensors"
    write_checkpoint(path, saved.weights, {"recipe": recipe, "epoch": "1"})
    config = load_config(scored_case.config, [f"checkpoint={json.dumps(str(path))}"])
    assert load_weights(prepare(config)).warnings == ()


def test_the_precision_and_the_algorithms_that_are_asked_for(tmp_path):
    """They are torch's own, for the whole process, and every configuration sets them anew."""

    def state():
        return (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.are_deterministic_algorithms_enabled(),
        )

    usual, asked = write_case(tmp_path / "a"), {"matmul": "high", "deterministic": True}
    changed = write_case(tmp_path / "b", {f"compute.{key}": v for key, v in asked.items()})
    prepare(load_config(changed.config))
    assert state() == ("high", True, True)
    prepare(load_config(usual.config))
    assert state() == ("highest", False, False)
