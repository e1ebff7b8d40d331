"""Checkpoints: what is read, what is refused, and that nothing in a file ever runs."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metaaudit.errors import CheckpointError
from metaaudit.inputs.checkpoints import read_checkpoint, write_checkpoint

WEIGHTS = {"b": torch.ones(3), "a": torch.arange(6.0).reshape(2, 3)}
SIDE_EFFECT = "METAAUDIT_TEST_SIDE_EFFECT"


class Evil:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ[SIDE_EFFECT],)


def torch_bytes(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def safetensors_bytes(tmp_path: Path) -> bytes:
    path = tmp_path / "whole.safetensors"
    write_checkpoint(path, WEIGHTS, {})
    return path.read_bytes()


def within_itself() -> dict[str, Any]:
    content: dict[str, Any] = {"a": torch.ones(1)}
    content["again"] = content
    return content


def doubled(times: int) -> dict[str, Any]:
    """``2 ** times`` lists, in a file of a few hundred bytes."""
    lists: list[Any] = []
    for _ in range(times):
        lists = [lists, lists]
    return {"a": torch.ones(1), "lists": lists}


BAD_FILES: list[tuple[str, str, Callable[[Path], bytes], str]] = [
    ("suffix", "w.ckpt", lambda _: b"x", "suffix"),
    ("empty", "w.pt", lambda _: b"", "is empty"),
    ("empty", "w.safetensors", lambda _: b"", "is empty"),
    ("noise", "w.pt", lambda _: b"abc", "is damaged"),
    ("truncated", "w.pt", lambda _: torch_bytes(WEIGHTS)[:-40], "is damaged"),
    ("truncated", "w.safetensors", lambda p: safetensors_bytes(p)[:-4], "no whole safetensors"),
    ("cut header", "w.safetensors", lambda p: safetensors_bytes(p)[:20], "no whole safetensors"),
    ("huge header", "w.safetensors", lambda _: b"\xff" * 16, "no whole safetensors"),
    ("code", "w.pt", lambda _: torch_bytes({"a": Evil()}), r"asks to run \w+\.mkdir"),
    (
        "code, old format",
        "w.pth",
        lambda _: torch_bytes({"a": Evil()}, _use_new_zipfile_serialization=False),
        r"asks to run \w+\.mkdir",
    ),
    ("bare pickle with code", "w.bin", lambda _: pickle.dumps(Evil()), "w.bin: "),
    ("module", "w.pt", lambda _: torch_bytes(torch.nn.Linear(1, 1)), "asks to run torch.nn"),
    ("no tensor in it", "w.pt", lambda _: torch_bytes({"epoch": 3}), "holds no tensors"),
    ("one tensor", "w.pt", lambda _: torch_bytes(torch.ones(2)), "holds a Tensor"),
    ("nothing", "w.pt", lambda _: torch_bytes({}), "holds no tensors"),
    (
        "sparse",
        "w.pt",
        lambda _: torch_bytes({"a": torch.eye(2).to_sparse()}),
        "a: is no plain tensor",
    ),
    (
        "itself",
        "w.pt",
        lambda _: torch_bytes(within_itself()),
        "holds itself, or too many dictionaries and lists",
    ),
    ("much in few bytes", "w.pt", lambda _: torch_bytes(doubled(40)), "holds itself, or too many"),
    (
        "one name twice",
        "w.pt",
        lambda _: torch_bytes({"a": {"b": torch.ones(2)}, "a.b": torch.ones(2)}),
        "holds two tensors named a.b",
    ),
]


@pytest.mark.parametrize(
    ("name", "make", "part"),
    [pytest.param(*case[1:], id=f"{case[0]}{Path(case[1]).suffix}") for case in BAD_FILES],
)
def test_bad_file_gives_one_line_and_runs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[Path], bytes],
    part: str,
) -> None:
    effect = tmp_path / "ran"
    monkeypatch.setenv(SIDE_EFFECT, str(effect))
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    with pytest.raises(CheckpointError, match=part) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not effect.exists()


def test_the_evil_object_would_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIDE_EFFECT, str(tmp_path / "ran"))
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "ran").exists()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "d.pt").mkdir()
    for name, part in {"no.pt": "No such file", "d.pt": "directory"}.items():
        with pytest.raises(CheckpointError, match=part):
            read_checkpoint(tmp_path / name)


def test_written_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    metadata = {name: name.upper() for name in "zyxwvut"}
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    write_checkpoint(first, WEIGHTS, metadata)
    write_checkpoint(second, dict(reversed(WEIGHTS.items())), dict(reversed(metadata.items())))
    assert first.read_bytes() == second.read_bytes()
    found = read_checkpoint(first)
    assert found.metadata == metadata
    assert found.sha256 == read_checkpoint(second).sha256
    assert sorted(found.weights) == sorted(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert torch.equal(found.weights[name], tensor)


def test_shared_and_transposed_tensors_can_be_written(tmp_path: Path) -> None:
    tensor = WEIGHTS["a"]
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, {"x": tensor, "y": tensor.T}, {})
    assert torch.equal(read_checkpoint(path).weights["y"], tensor.T)
    with pytest.raises(CheckpointError, match="suffix"):
        write_checkpoint(tmp_path / "w.pt", WEIGHTS, {})
    assert list(tmp_path.iterdir()) == [path]


def test_state_dict_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(torch_bytes(torch.nn.Linear(2, 3).state_dict()))
    assert list(read_checkpoint(path).weights) == ["weight", "bias"]


NESTED: list[tuple[str, Any, list[str]]] = [
    ("state_dict", {"state_dict": WEIGHTS, "epoch": 3}, ["state_dict.b", "state_dict.a"]),
    (
        "two",
        {"embedding": WEIGHTS, "head": {"scale": torch.ones(1)}},
        ["embedding.b", "head.scale"],
    ),
    ("list", {"params": [torch.ones(1), torch.ones(2)], "lr": 0.1}, ["params.0", "params.1"]),
    ("numbers", {"layers": {0: {"w": torch.ones(1)}}}, ["layers.0.w"]),
    (
        "optimiser",
        {
            "network": WEIGHTS,
            "opt": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{}]},
        },
        ["network.b", "network.a"],
    ),
]


@pytest.mark.parametrize(
    ("content", "names"), [case[1:] for case in NESTED], ids=[case[0] for case in NESTED]
)
def test_nested_tensors_have_dotted_names(tmp_path: Path, content: Any, names: list[str]) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(torch_bytes(content))
    found = list(read_checkpoint(path).weights)
    assert set(names) <= set(found)
    assert not [name for name in found if "exp_avg" in name]
