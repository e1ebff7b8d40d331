"""Which keys of ``influence`` go with which method."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaaudit.config import load_config
from metaaudit.config.influence import USED_BY, InfluenceConfig
from metaaudit.errors import ConfigError

MINIMAL = """model: {name: conv4}
learner: {name: maml, inner_lr: 0.1, steps: 3}
checkpoint: w.pt
tasks: {format: episodes, train: a.npz, eval: b.npz}
"""
METHODS = (
    *("task-if", "dot", "direct-if", "ekfac-if", "gradient-ascent"),
    *("trak", "mts", "tracin", "loss", "grad-norm", "random"),
)
OTHER_VALUES = {
    "curvature": "exact",
    "preconditioner": "ekfac",
    "solver": "cg",
    "damping": "0.5",
    "tolerance": "1e-6",
    "max_iterations": "7",
    "trak": "{dimension: 9}",
    "mts": "{epochs: 2}",
    "probes": "3",
    "seed": "3",
}
NEEDED = {
    ("task-if", "preconditioner"): "curvature=exact",
    ("task-if", "solver"): "curvature=exact",
}


def read(folder: Path, *settings: str) -> InfluenceConfig:
    path = folder / "config.yaml"
    path.write_text(MINIMAL)
    return load_config(path, [f"influence.{one}" for one in settings]).influence


@pytest.mark.parametrize("key", OTHER_VALUES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_refuses_the_keys_that_it_does_not_read(
    tmp_path: Path, method: str, key: str
) -> None:
    needed = NEEDED.get((method, key))
    settings = [f"method={method}", f"{key}={OTHER_VALUES[key]}", *([needed] if needed else [])]
    if method in USED_BY[key]:
        assert read(tmp_path, *settings).method == method
        return
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, *settings)
    message = str(caught.value)
    assert "\n" not in message
    if key == "preconditioner":
        assert "preconditioner 'ekfac' is for solver 'cg'; remove it" in message
    else:
        named = " and ".join(USED_BY[key])
        assert f"{key} is for method {named}, not for {method}; remove it" in message


def test_every_key_that_a_method_may_not_read_is_tried() -> None:
    assert set(OTHER_VALUES) == set(USED_BY)


def test_a_key_at_its_default_is_no_obstacle(tmp_path: Path) -> None:
    defaults = ("curvature=sampled-fisher", "damping=auto", "seed=0", "trak={dimension: 512}")
    assert read(tmp_path, "method=tracin", *defaults).method == "tracin"


def test_keys_of_an_inner_solve_are_read_by_all_methods(tmp_path: Path) -> None:
    implicit = ("derivative=implicit", "inner={inverse: cg}")
    assert read(tmp_path, "method=dot", *implicit, "tolerance=1e-6").tolerance == 1e-6
    with pytest.raises(ConfigError, match="tolerance is for method"):
        read(tmp_path, "method=dot", implicit[0], "tolerance=1e-6")


@pytest.mark.parametrize("name", ["fomaml", "reptile"])
def test_learners_that_follow_a_field_take_every_method(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL)
    for method in METHODS:
        found = load_config(path, [f"learner.name={name}", f"influence.method={method}"])
        assert found.influence.method == method


@pytest.mark.parametrize("solver", ["dual", "ekfac", "gmres"])
def test_direct_influence_has_the_solvers_of_an_exact_hessian(tmp_path: Path, solver: str) -> None:
    with pytest.raises(
        ConfigError, match=f"'{solver}' does not solve method 'direct-if'; expected"
    ):
        read(tmp_path, "method=direct-if", f"solver={solver}")


@pytest.mark.parametrize(
    ("settings", "by_cg", "outer", "pooled"),
    [
        ((), False, False, False),
        (("curvature=exact",), True, False, False),
        (("curvature=exact", "solver=dense"), False, False, False),
        (("curvature=ekfac",), False, True, False),
        (("curvature=exact", "preconditioner=ekfac"), True, True, False),
        (("method=dot",), False, False, False),
        (("method=direct-if",), True, False, False),
        (("method=direct-if", "solver=neumann"), True, False, False),
        (("method=direct-if", "solver=dense"), False, False, False),
        (("method=direct-if", "preconditioner=ekfac"), True, False, True),
        (("method=ekfac-if",), False, False, True),
        (("method=trak",), False, False, False),
        (("method=random",), False, False, False),
    ],
)
def test_what_a_method_needs(
    tmp_path: Path, settings: tuple[str, ...], by_cg: bool, outer: bool, pooled: bool
) -> None:
    found = read(tmp_path, *settings)
    assert (found.by_cg, found.outer_ekfac, found.pooled_ekfac) == (by_cg, outer, pooled)
    assert found.uses_ekfac == (outer or pooled)
