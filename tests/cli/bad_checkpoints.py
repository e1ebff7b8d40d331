"""Faults of checkpoints, and of the settings that have to do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.cli.faults import (
    ST,
    Bad,
    change_weights,
    cut,
    fill,
    flip,
    flip_in,
    nested,
    put,
    state_dict,
    then,
    twice,
    whole,
)
from tests.cli.formats import weights

PT = {"checkpoint": "weights.pt"}
CNN = "blocks.0.conv.weight"


def any_file(suffix: str, names: str, reason: str, change: Any, **settings: Any) -> Bad:
    where = {"checkpoint": f"weights{suffix}"} if suffix else {}
    return Bad("own .npz", names, reason, change_weights(change, suffix), where | settings)


def lacks_statistics(suffix: str) -> Bad:
    name = f"weights{suffix}" if suffix else ST
    return any_file(suffix, name, "running_mean", whole, **{"model.statistics": "running"})


WEIGHTS: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], Any], dict[str, Any]]] = {
    "one channel more": ("wrong shape", lambda w: weights(hidden=5), {}),
    "one input channel more": (f"{CNN} [4, 3, 3, 3] for [4, 1, 3, 3]", lambda w: weights(3), {}),
    "two readings": ("can be read in two ways", twice, {}),
    "NaN": ("1 of ", fill(float("nan")), {}),
    "infinity": ("are NaN or infinite", fill(float("-inf")), {}),
    "complex weights": ("floating point", lambda w: {n: t * 1j for n, t in w.items()}, {}),
    "no tensors by these names": (
        "does not fit the model",
        lambda w: {"a": torch.ones(3)},
        {},
    ),
    "lacks statistics": ("running_mean", whole, {"model.statistics": "running"}),
}
# In the order of their names, and the same each time.
NOT_THERE = "expected one of blocks.0.conv.bias, blocks.0.conv.weight, blocks.0.norm.bias and 15"
CHECKPOINT_CASES = {
    **{
        f"{suffix or ST}: {fault}": any_file(
            suffix, f"weights{suffix}" if suffix else ST, reason, change, **settings
        )
        for suffix in ("", ".pt")
        for fault, (reason, change, settings) in WEIGHTS.items()
    },
    **{
        f"{suffix or ST}: {fault}": any_file(suffix, "rename", reason, whole, rename=rename)
        for suffix in ("", ".pt")
        for fault, reason, rename in (
            ("rename of nothing", NOT_THERE, {"none": CNN}),
            ("rename of two", "the same name", {CNN: "blocks.1.conv.weight"}),
        )
    },
    "safetensors: flipped length": Bad("own .npz", ST, "no whole safetensors file", flip(ST, 6)),
    "safetensors: flipped header": Bad("own .npz", ST, "no whole safetensors file", flip(ST, 8)),
    "safetensors: claimed shape": Bad(
        "own .npz", ST, "no whole safetensors file", flip_in(ST, b"[4,", mask=0x0D)
    ),
    "safetensors: empty": Bad("own .npz", ST, "is empty", put(ST, b"")),
    "safetensors: header cut": Bad("own .npz", ST, "no whole safetensors file", put(ST, b"\x09\0")),
    **{
        f".pt: {fault}": Bad("own .npz", "weights.pt", reason, broken, PT)
        for fault, reason, broken in (
            ("truncated", "is damaged", then(state_dict(whole), cut("weights.pt", 100))),
            ("flipped header", "is damaged", then(state_dict(whole), flip("weights.pt", 0))),
            ("empty", "is empty", put("weights.pt", b"")),
            ("a list", "holds a list", state_dict(lambda w: list(w.values()))),
            (
                "sparse",
                "is no plain tensor",
                state_dict(lambda w: w.update({CNN: w[CNN].to_sparse()})),
            ),
            ("no tensors", "holds no tensors", state_dict(lambda w: {"epoch": 3})),
            ("deep nesting", "is damaged", nested("weights.pt")),
            ("text", "is damaged", put("weights.pt", b"text")),
        )
    },
    "checkpoint: other suffix": Bad(
        "own .npz",
        "weights.ckpt",
        "has the suffix '.ckpt'",
        change_weights(whole, ".ckpt"),
        {"checkpoint": "weights.ckpt"},
    ),
}

HEAD = {"name": "anil", "inner_lr": 0.1, "steps": 1}
SETTING_CASES = {
    "learner.head: no layer": Bad(
        "own .npz",
        "learner.head",
        "no layer of the model",
        settings={"learner": {**HEAD, "head": "hed"}},
    ),
    "learner.head: a convolution": Bad(
        "own .npz",
        "learner.head",
        "Conv2d",
        settings={"learner": {**HEAD, "head": "blocks.0.conv"}},
    ),
    "learner.head: empty": Bad(
        "own .npz", "learner.head", "torch.nn.Linear", settings={"learner": {**HEAD, "head": ""}}
    ),
    "learner.head of maml": Bad(
        "own .npz", "learner.head", "unknown key", settings={"learner.head": "head"}
    ),
    "tasks.format: unknown": Bad(
        "own .npz", "tasks.format", "did you mean 'episodes'?", settings={"tasks.format": "episode"}
    ),
}
