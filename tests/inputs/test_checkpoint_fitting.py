"""Which tensor of a checkpoint is which of the network: one reading, or a refusal with a reason."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from metaaudit.errors import CheckpointError, ConfigError
from metaaudit.inputs.checkpoints import Fitted, Target, fit_weights

SHAPES = {
    "base.0.conv.weight": (4, 1, 3, 3),
    "base.0.conv.bias": (4,),
    "base.0.norm.weight": (4,),
    "base.0.norm.bias": (4,),
    "base.1.conv.weight": (4, 4, 3, 3),
    "base.1.conv.bias": (4,),
    "head.weight": (5, 4),
    "head.bias": (5,),
}
"""A network's parameters, in order."""

BODY = [name for name in SHAPES if not name.startswith("head")]


def values(names: Mapping[str, tuple[int, ...]] = SHAPES, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in names.items()}


def zeros(names: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in names.items()}


TARGET = Target(zeros(), zeros())
NORM = ("running_mean", "running_var")
BUFFERS = {f"base.0.norm.{name}": torch.full((4,), n + 1.0) for n, name in enumerate(NORM)}
COUNT = {"base.0.norm.num_batches_tracked": torch.tensor(7)}


def below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def numbered(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{n}": tensor for n, tensor in enumerate(tensors.values())}


def check(fitted: Fitted, expected: Mapping[str, torch.Tensor] | None = None) -> None:
    expected = values() if expected is None else expected
    assert list(fitted.params) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(fitted.params[name], tensor), name


LAYOUTS = {
    "as the network": values(),
    "another order": dict(reversed(values().items())),
    "module.": below("module.", values()),
    "model.module.": below("model.module.", values()),
    "state_dict, with an optimiser's": {
        **below("state_dict.", values()),
        "opt.buffer": torch.ones(2),
    },
    "with statistics": {**values(), **BUFFERS, **COUNT},
    "with statistics below a prefix": below("net.", {**values(), **BUFFERS, **COUNT}),
    "twice, under a second name": {
        **below("module.", values()),
        **{
            name.replace("base.", "module.features.1."): tensor
            for name, tensor in {**values(), **BUFFERS}.items()
            if name.startswith("base.")
        },
    },
    "twice, whole, and equal": {**below("model.", values()), **below("copy.", values())},
    "numbers": numbered("net.vars.", values()),
    "numbers, and statistics beside": {
        **numbered("net.vars.", values()),
        **numbered("net.vars_bn.", BUFFERS),
    },
    "numbers alone": numbered("", values()),
    "other names": {f"x{n}.{name}": tensor for n, (name, tensor) in enumerate(values().items())},
    "other names, twice": {
        **below("net.one.", {f"layer{n}.p": t for n, t in enumerate(values().values())}),
        **below("net.two.", {f"layer{n}.p": t.clone() for n, t in enumerate(values().values())}),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout: str) -> None:
    check(fit_weights(LAYOUTS[layout], TARGET, "w.pt"))


def test_a_file_without_the_networks_prefix_is_read() -> None:
    target = Target(below("encoder.", zeros()), below("encoder.", zeros()))
    check(fit_weights(values(), target, "w.pt"), below("encoder.", values()))


def test_numbers_count_as_numbers_where_a_file_is_sorted_by_name() -> None:
    many = {f"p{n:02d}": (n + 1,) for n in range(12)}
    given = numbered("vars.", values(many))
    given = {name: given[name] for name in sorted(given)}
    assert list(given)[1] == "vars.1" and list(given)[2] == "vars.10"
    fitted = fit_weights(given, Target(zeros(many), zeros(many)), "w.safetensors", ordered=False)
    check(fitted, values(many))


def test_the_mapping_says_which_is_which() -> None:
    given = below("module.", {**values(), **BUFFERS})
    lines = fit_weights(given, TARGET, "w.pt").mapping
    assert lines[0] == (
        "8 tensors by name below 'module.'; 2 statistics that this model does not use"
    )
    assert "module.base.0.conv.weight -> base.0.conv.weight [4, 1, 3, 3]" in lines
    assert (
        "module.base.0.norm.running_mean: ignored, statistics that this model does not use" in lines
    )
    by_order = fit_weights(numbered("net.vars.", values()), TARGET, "w.pt").mapping
    assert by_order[0] == "8 tensors in the file's order"
    assert "net.vars.7 -> head.bias [5]" in by_order


ROOTED = below("features.", {name: SHAPES[name] for name in BODY})
"""The parameters of a network without a head, which has one prefix."""


@pytest.mark.parametrize("prefix", ["", "embedding.", "embedding.module."])
def test_file_and_network_may_each_have_a_prefix(prefix: str) -> None:
    network = {**zeros(ROOTED), "classifier.weight": torch.zeros(5, 4)}
    body = {name: tensor for name, tensor in values().items() if name in BODY}
    given = {**below(prefix, dict(reversed(body.items()))), "head.scale": torch.ones(1)}
    if not prefix:
        del given["head.scale"]
    fitted = fit_weights(given, Target(zeros(ROOTED), network), "w.pt")
    check(fitted, below("features.", body))
    assert fitted.mapping[0].startswith("6 tensors by name")


def test_without_an_order_the_alphabet_says_nothing() -> None:
    like = {"first": (4, 4), "middle": (4, 4), "norm": (4,), "shift": (4,)}
    target = Target(zeros(like), zeros(like))
    names = ["fc.in", "fc.hidden", "norm.gamma", "norm.beta"]
    given = dict(zip(names, values(like).values(), strict=True))
    check(fit_weights(given, target, "w.pt"), values(like))
    given = {name: given[name] for name in sorted(given)}
    with pytest.raises(CheckpointError, match="missing first"):
        fit_weights(given, target, "w.safetensors", ordered=False)
    rename = dict(zip(names, like, strict=True))
    fitted = fit_weights(given, target, "w.safetensors", ordered=False, rename=rename)
    check(fitted, values(like))


def test_a_weight_is_no_bias_whatever_the_order() -> None:
    given = {name.replace("norm", "bn"): tensor for name, tensor in values().items()}
    check(fit_weights(given, TARGET, "w.pt"))
    other = {"base.0.bn.weight": "base.0.bn.bias", "base.0.bn.bias": "base.0.bn.weight"}
    swapped = {other.get(name, name): tensor for name, tensor in given.items()}
    with pytest.raises(CheckpointError, match="missing base"):
        fit_weights(swapped, TARGET, "w.pt")


def test_statistics_by_order() -> None:
    like = {name: torch.zeros(4) for name in BUFFERS}
    target = Target(zeros(), zeros(), like, required=tuple(like))
    listed = dict(zip(("net.vars_bn.0", "net.vars_bn.1"), BUFFERS.values(), strict=True))
    named = {f"net.bn7.{name}": BUFFERS[f"base.0.norm.{name}"] for name in NORM}
    for statistics in (listed, named, dict(reversed(named.items()))):
        given = {**numbered("net.vars.", values()), **statistics}
        fitted = fit_weights(given, target, "w.pt")
        check(fitted)
        assert all(torch.equal(fitted.buffers[name], BUFFERS[name]) for name in BUFFERS)
        assert fit_weights(given, TARGET, "w.pt").warnings == ()


def test_orders_and_converts() -> None:
    given = {name: tensor.double() for name, tensor in reversed(values().items())}
    fitted = fit_weights(given, TARGET, "w.pt")
    check(fitted)
    assert {tensor.dtype for tensor in fitted.params.values()} == {torch.float32}


def test_two_readings_are_refused_by_name() -> None:
    given = {**below("model.", values()), **below("ema.", values(seed=1))}
    with pytest.raises(CheckpointError) as caught:
        fit_weights(given, TARGET, "w.pt")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("'model.'", "'ema.'", "base.0.conv.weight is ema.base.0.conv.weight", "rename"):
        assert part in message
    check(fit_weights(given, TARGET, "w.pt", rename={"ema.": ""}), values(seed=1))
    check(fit_weights(given, TARGET, "w.pt", rename={"model.": ""}))


def test_a_reading_that_has_more_is_taken() -> None:
    own = {"ridge.log_l2": torch.tensor(0.5)}
    target = Target({**zeros(), **own}, zeros(), optional=tuple(own))
    more = {"ema.ridge.log_l2": torch.tensor(2.0)}
    for given in (
        {**below("model.", values()), **below("ema.", values()), **more},
        {**below("ema.", values()), **more, **below("model.", values())},
    ):
        fitted = fit_weights(given, target, "w.pt")
        assert float(fitted.params["ridge.log_l2"]) == 2.0


def test_weights_that_the_learner_does_not_use_may_differ() -> None:
    target = Target(zeros({name: SHAPES[name] for name in BODY}), zeros())
    given = {**below("a.", values()), **below("b.", values()), "b.head.bias": torch.ones(5)}
    check(fit_weights(given, target, "w.pt"), {name: values()[name] for name in BODY})


def test_two_orders_are_refused() -> None:
    shapes = {"a": (3,), "b": (3,)}
    given = {"layer.2": torch.ones(3), "layer.1": torch.zeros(3)}
    target = Target(zeros(shapes), zeros(shapes))
    with pytest.raises(CheckpointError) as caught:
        fit_weights(given, target, "w.pt")
    for part in ("in the file's order", "in the order of the numbers", "a is layer.2", "rename"):
        assert part in str(caught.value)
    fitted = fit_weights(given, target, "w.pt", rename={"layer.1": "a", "layer.2": "b"})
    assert float(fitted.params["b"].sum()) == 3.0


def test_an_alphabetical_order_is_none() -> None:
    shapes = {"a.weight": (3, 3), "b.weight": (3, 3)}
    target = Target(zeros(shapes), zeros(shapes))
    given = {"first": torch.ones(3, 3), "second": torch.zeros(3, 3)}
    with pytest.raises(CheckpointError, match=r"missing a\.weight"):
        fit_weights(given, target, "w.safetensors", ordered=False)
    fitted = fit_weights(given, target, "w.pt")  # which keeps the order in which it was written
    assert float(fitted.params["a.weight"].sum()) == 9.0


def test_copies_that_differ_in_what_is_not_used_are_no_two_readings() -> None:
    body = {name: SHAPES[name] for name in BODY}
    target = Target(zeros(body), zeros())
    expected = {name: tensor for name, tensor in values().items() if name in body}
    other_head = {**values(), "head.weight": torch.ones(5, 4)}
    check(fit_weights({**below("a.", values()), **below("b.", other_head)}, target, "w"), expected)
    check(fit_weights({**below("a.", expected), **below("b.", values())}, target, "w"), expected)


def test_of_two_equal_copies_the_fuller_one_is_taken() -> None:
    own = {"ridge.log_l2": torch.tensor(0.5)}
    target = Target({**zeros(), **own}, zeros(), optional=tuple(own))
    given = {**below("a.", values()), **below("b.", values()), "b.ridge.log_l2": torch.tensor(1.0)}
    fitted = fit_weights(given, target, "w.pt")
    assert float(fitted.params["ridge.log_l2"]) == 1.0


def test_a_backbone_of_another_code_base_is_read_below_any_prefix() -> None:
    names = {f"features.{name}": SHAPES[name] for name in BODY}
    target = Target(zeros(names), {**zeros(names), "head.weight": torch.zeros(5, 4)})
    body = {name.removeprefix("features."): tensor for name, tensor in values(names).items()}
    foreign = {"fc.weight": torch.ones(64, 4), "fc.bias": torch.ones(64)}
    for given in ({**body, **foreign}, below("module.", {**body, **foreign})):
        fitted = fit_weights(given, target, "w.pt")
        check(fitted, values(names))
        assert "that are ignored: " in fitted.warnings[0] and "fc.bias" in fitted.warnings[0]


def test_equal_layers_at_initialisation_are_no_copies() -> None:
    given = {}
    for place in ("one", "two"):
        for n, tensor in enumerate(values().values()):
            given[f"net.{place}.layer{n // 2}.{'ab'[n % 2]}"] = tensor.clone()
    for n in (0, 1):  # equal normalisations within each of the two
        for place in ("one", "two"):
            given[f"net.{place}.norm{n}.x"] = torch.ones(2)
            given[f"net.{place}.norm{n}.y"] = torch.zeros(2)
    shapes = {**SHAPES, "n0.x": (2,), "n0.y": (2,), "n1.x": (2,), "n1.y": (2,)}
    fitted = fit_weights(given, Target(zeros(shapes), zeros(shapes)), "w.pt")
    assert torch.equal(fitted.params["head.bias"], values()["head.bias"])


def test_rates_are_numbered_by_the_files_order() -> None:
    rates = {f"lrs.{n}": torch.zeros(shape) for n, shape in enumerate(SHAPES.values())}
    target = Target({**zeros(), **rates}, zeros())
    shuffled = {**dict(reversed(values().items())), **rates}
    with pytest.raises(CheckpointError, match=r"in another order than the model, and lrs\.0"):
        fit_weights(shuffled, target, "w.pt")
    fit_weights(shuffled, target, "w.safetensors", ordered=False)
    fit_weights({**values(), **rates}, target, "w.pt")


def test_a_network_that_has_two_names_for_a_tensor_needs_one_value() -> None:
    target = Target(zeros(), zeros(), aliases={"head.bias": ("fc.bias",)})
    given = values()
    check(fit_weights({**given, "fc.bias": given["head.bias"]}, target, "w.pt"))
    given["fc.bias"] = given.pop("head.bias")
    fitted = fit_weights(given, target, "w.pt")
    assert torch.equal(fitted.params["head.bias"], given["fc.bias"])
    with pytest.raises(CheckpointError, match=r"fc\.bias and head\.bias differ"):
        fit_weights({**values(), "fc.bias": torch.ones(5)}, target, "w.pt")


def test_what_the_learner_does_not_use_may_be_there_or_not() -> None:
    body = {name: SHAPES[name] for name in BODY}
    target = Target(zeros(body), zeros())
    expected = {name: tensor for name, tensor in values().items() if name in body}
    for given in (
        values(),
        below("module.", expected),
        numbered("v.", values()),
        numbered("v.", expected),
    ):
        check(fit_weights(given, target, "w.pt"), expected)
    lines = fit_weights({**values(), "head.weight": torch.ones(9, 4)}, target, "w.pt").mapping
    assert "head.weight: ignored, not used by this learner" in lines


def test_a_learners_own_tensors_lie_beside_or_above_the_networks() -> None:
    rates = {f"lrs.{n}": (n + 1,) for n in range(3)}
    target = Target({**zeros(), **zeros(rates)}, zeros())
    expected = {**values(), **values(rates)}
    check(fit_weights({**below("module.", values()), **values(rates)}, target, "w.pt"), expected)
    check(fit_weights(below("module.", expected), target, "w.pt"), expected)
    with pytest.raises(CheckpointError, match=r"missing lrs\.0 \[1\], lrs\.1 \[2\]"):
        fit_weights(values(), target, "w.pt")
    turned = {**dict(reversed(values().items())), **values(rates)}
    with pytest.raises(CheckpointError, match=r"in another order .* lrs\.0 and so on"):
        fit_weights(turned, target, "w.pt")
    check(fit_weights(turned, target, "w.safetensors", ordered=False), expected)


def test_what_a_file_may_lack_keeps_its_value() -> None:
    own = {"ridge.log_l2": torch.tensor(0.5)}
    target = Target({**zeros(), **own}, zeros(), optional=("ridge.log_l2",))
    fitted = fit_weights(values(), target, "w.pt")
    assert float(fitted.params["ridge.log_l2"]) == 0.5
    assert "ridge.log_l2: not in the file, from the configuration" in fitted.mapping
    fitted = fit_weights({**values(), "ridge.log_l2": torch.tensor(2.0)}, target, "w.pt")
    assert float(fitted.params["ridge.log_l2"]) == 2.0


def test_buffers_are_taken_and_some_must_be_there() -> None:
    like = {name: torch.zeros(4) for name in BUFFERS}
    target = Target(zeros(), zeros(), like, required=tuple(like))
    fitted = fit_weights(below("module.", {**values(), **BUFFERS}), target, "w.pt")
    assert all(torch.equal(fitted.buffers[name], BUFFERS[name]) for name in BUFFERS)
    with pytest.raises(CheckpointError, match=r"missing base\.0\.norm\.running_mean \[4\]"):
        fit_weights(values(), target, "w.pt")
    assert fit_weights(values(), Target(zeros(), zeros(), like), "w.pt").buffers == {}


def test_a_buffer_keeps_its_kind() -> None:
    target = Target(zeros(), zeros(), {"count": torch.tensor(0)})
    fitted = fit_weights({**values(), "count": torch.tensor(3)}, target, "w.pt")
    assert int(fitted.buffers["count"]) == 3
    assert (
        "count: not in the file, as the model has it"
        in fit_weights(values(), target, "w.pt").mapping
    )
    with pytest.raises(CheckpointError, match=r"count: has dtype torch\.float32"):
        fit_weights({**values(), "count": torch.tensor(2.7)}, target, "w.pt")


def test_variances_are_none_below_zero() -> None:
    like = {name: torch.zeros(4) for name in BUFFERS}
    given = {**values(), **BUFFERS, "base.0.norm.running_var": -torch.ones(4)}
    with pytest.raises(CheckpointError, match=r"running_var: has variances below 0"):
        fit_weights(given, Target(zeros(), zeros(), like, required=tuple(like)), "w.pt")


def test_what_lies_outside_is_warned_of() -> None:
    given = {**below("module.", values()), "lrs.0": torch.ones(3)}
    (warning,) = fit_weights(given, TARGET, "w.pt").warnings
    assert warning == "tensors of the checkpoint that are ignored: lrs.0"
    assert fit_weights(values(), TARGET, "w.pt").warnings == ()


def changed(name: str, tensor: torch.Tensor | None) -> dict[str, torch.Tensor]:
    given = values()
    given.pop(name, None)
    return given if tensor is None else {**given, name: tensor}


NAN = torch.full((5,), float("nan"))
MISFITS = [
    (
        changed("base.1.conv.weight", torch.ones(4, 3, 3, 3)),
        r"wrong shape base\.1\.conv\.weight \[4, 3, 3, 3\] for \[4, 4, 3, 3\]",
    ),
    (
        below("module.", changed("head.bias", torch.ones(6))),
        r"wrong shape module\.head\.bias \[6\] for \[5\]",
    ),
    (changed("head.bias", None), r"missing head\.bias \[5\]"),
    ({"other": torch.ones(2)}, r"missing base\.0\.conv\.weight .* and 5 more; unexpected other"),
    ({**values(), "extra": torch.ones(2)}, r"unexpected extra \[2\]"),
    (below("m.", {**values(), "extra": torch.ones(2)}), r"unexpected m\.extra \[2\]"),
    (numbered("v.", dict(list(values().items())[:-1])), "does not fit the model: missing"),
    (
        {**numbered("v.", values()), "v.0": torch.ones(4, 2, 3, 3)},
        r"wrong shape v\.0 \[4, 2, 3, 3\] for base\.0\.conv\.weight \[4, 1, 3, 3\]",
    ),
    (changed("head.bias", NAN), "head.bias: 5 of 5 weights are NaN or infinite"),
    (changed("head.bias", torch.full((5,), 1e300, dtype=torch.float64)), "NaN or infinite"),
    (changed("head.bias", torch.ones(5, dtype=torch.int64)), "has dtype torch.int64"),
    (changed("head.bias", torch.ones(5, dtype=torch.complex64)), "floating point"),
]


@pytest.mark.parametrize(("given", "part"), MISFITS)
def test_misfit_gives_one_line(given: dict[str, torch.Tensor], part: str) -> None:
    with pytest.raises(CheckpointError, match=part) as caught:
        fit_weights(given, TARGET, "w.pt")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("w.pt")


@pytest.mark.parametrize(
    ("rename", "part"),
    [
        ({"none": "head.bias"}, "'none' is nothing in w.pt; expected one of base.0.conv.weight"),
        ({"none.": ""}, "'none.' is nothing in w.pt"),
        ({"head.bias": "head.weight"}, "the same name 'head.weight'"),
        ({"head.bias": "fc.bias"}, "'head.bias' becomes 'fc.bias', which is nothing in the model"),
        ({"head.": "fc."}, "'head.' becomes 'fc.', which is nothing in the model"),
    ],
)
def test_a_rename_that_names_nothing_is_refused(rename: dict[str, str], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fit_weights(values(), TARGET, "w.pt", rename=rename)
    assert part in str(caught.value)


def test_renaming_needs_no_order_and_leaves_the_rest() -> None:
    given = values()
    given["fc.w"], given["fc.b"] = given.pop("head.weight"), given.pop("head.bias")
    rename = {"fc.w": "head.weight", "fc.b": "head.bias"}
    check(fit_weights(given, TARGET, "w.pt", rename=rename))
    check(fit_weights(below("a.b.", values()), TARGET, "w.pt", rename={"a.b.": ""}))
    with pytest.raises(CheckpointError, match=r"missing head\.bias"):
        fit_weights(given, TARGET, "w.pt", rename={"fc.w": "head.weight"})
