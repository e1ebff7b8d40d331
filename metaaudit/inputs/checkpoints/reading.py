"""Tensors from ``.safetensors`` files and PyTorch state dicts, never running code from them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.serialization import get_unsafe_globals_in_checkpoint

from metaaudit.errors import CheckpointError
from metaaudit.inputs.checkpoints.names import listed

_TORCH_SUFFIXES = (".pt", ".pth", ".bin")
_MOST_CONTAINERS, _DEEPEST = 10_000, 20
_EXPORT = "export it with torch.save(model.state_dict(), 'weights.pt')"


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        weights: Tensors on the CPU by name: of a state dict in the file's order, where those of
            nested dictionaries have dotted names; of a safetensors file sorted.
        metadata: Text that a safetensors file holds beside them; else empty.
        sha256: Digest of the file's bytes.
    """

    weights: dict[str, torch.Tensor]
    metadata: dict[str, str]
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        CheckpointError: The file is missing, damaged, of another kind, holds no tensors by name,
            or would run code.
    """
    if path.suffix not in (".safetensors", *_TORCH_SUFFIXES):
        raise CheckpointError(
            path, f"has the suffix '{path.suffix}'", ".safetensors, .pt, .pth or .bin", _EXPORT
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            path, f"cannot be read ({error.strerror})", "a checkpoint file", "check the path"
        ) from None
    if not data:
        raise CheckpointError(path, "is empty", "a checkpoint", "copy or train it again")
    digest = hashlib.sha256(data).hexdigest()
    if path.suffix == ".safetensors":
        return Checkpoint(*_read_safetensors(path, data), digest)
    return Checkpoint(_read_torch(path, data), {}, digest)


def _read_safetensors(path: Path, data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        weights = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            path, f"is no whole safetensors file ({error})", remedy="copy or train it again"
        ) from None
    # Loading gives them in another order each time.
    return dict(sorted(weights.items())), header.get("__metadata__", {})


def _read_torch(path: Path, data: bytes) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript archives warn before they are refused
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        wanted = _refused_globals(data, str(error))
        what = f"asks to run {listed(wanted)}" if wanted else "is damaged or no state dict"
        raise CheckpointError(path, what, "tensors only", _EXPORT) from None
    except Exception as error:  # PyTorch raises whatever a damaged file happens to trip over
        script = "TorchScript" in str(error)
        what = "is a TorchScript archive" if script else f"is damaged ({type(error).__name__})"
        raise CheckpointError(path, what, "a whole state dict", _EXPORT) from None
    return _state_dict(path, content)


def _refused_globals(data: bytes, message: str) -> list[str]:
    """What a file wants to import: all of it in an archive, the first in an older pickle."""
    try:
        return sorted(get_unsafe_globals_in_checkpoint(io.BytesIO(data)))
    except Exception:  # PyTorch can list them for whole archives only
        return re.findall(r"GLOBAL (\S+)", message)[:1]


def _state_dict(path: Path, content: Any) -> dict[str, torch.Tensor]:
    """All tensors of nested dictionaries and lists, by dotted name, and nothing else of them."""
    if not isinstance(content, dict):
        raise CheckpointError(path, f"holds a {type(content).__name__}", "tensors by name", _EXPORT)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in _tensors(path, content):
        if name in tensors:
            raise CheckpointError(path, f"holds two tensors named {name}", "one", _EXPORT)
        tensors[name] = value.detach()
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{path}: {name}", "is no plain tensor", "dense tensors", _EXPORT)
    if not tensors:
        raise CheckpointError(path, "holds no tensors", "tensors by name", _EXPORT)
    return tensors


def _tensors(path: Path, content: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors by dotted name, in order. A file can hold itself, or much in few bytes."""
    left: list[tuple[str, Any, int]] = [("", content, 0)]
    containers = 0
    while left:
        name, value, depth = left.pop()
        if isinstance(value, torch.Tensor):
            yield name, value
            continue
        if isinstance(value, Mapping):
            if "param_groups" in value:  # an optimiser's, whose moments have the weights' shapes
                continue
            inner = [(str(k), one) for k, one in value.items() if isinstance(k, str | int)]
        elif isinstance(value, list | tuple):
            inner = [(str(number), one) for number, one in enumerate(value)]
        else:
            continue
        containers += 1
        if containers > _MOST_CONTAINERS or depth > _DEEPEST:
            raise CheckpointError(
                path, "holds itself, or too many dictionaries and lists", "tensors by name", _EXPORT
            )
        before = f"{name}." if name else ""
        left.extend((before + key, one, depth + 1) for key, one in reversed(inner))
