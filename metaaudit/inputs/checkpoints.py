"""Weights from ``.safetensors`` files and PyTorch state dicts, never running code from them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.serialization import get_unsafe_globals_in_checkpoint

from metaaudit.errors import CheckpointError
from metaaudit.runs.atomic import replacing

_TORCH_SUFFIXES = (".pt", ".pth", ".bin")
_EXPORT = "export it with torch.save(model.state_dict(), 'weights.pt')"
_SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        weights: Tensors on the CPU by name, in the file's order.
        metadata: Text that a safetensors file holds beside them; else empty.
        sha256: Digest of the file's bytes.
    """

    weights: dict[str, torch.Tensor]
    metadata: dict[str, str]
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        CheckpointError: The file is missing, damaged, of another kind, holds anything but
            tensors by name, or would run code.
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


def write_checkpoint(
    path: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file atomically; equal content gives equal bytes.

    Raises:
        CheckpointError: The suffix is not ``.safetensors``.
        RunError: The folder cannot be written to.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(path, f"has the suffix '{path.suffix}'", ".safetensors")
    # A copy each: safetensors refuses tensors that share memory.
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in weights.items()}
    data = safetensors.torch.save(tensors)
    # The library writes metadata in random order, so it is put into the header here.
    size = int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary:
        temporary.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def fit_weights(
    weights: Mapping[str, torch.Tensor], template: Mapping[str, torch.Tensor], where: object
) -> dict[str, torch.Tensor]:
    """The weights in the template's order and dtypes, once they are known to fit.

    Statistics that BatchNorm tracks are ignored where the template has none: models here always
    use those of the batch.

    Args:
        weights: Tensors by name.
        template: The model's parameters.
        where: What to call the weights in messages.

    Raises:
        CheckpointError: Names or shapes differ, or a tensor is not of finite real numbers.
    """
    tracked = ("running_mean", "running_var", "num_batches_tracked")
    extra = [
        name for name in weights if name not in template and name.rpartition(".")[2] not in tracked
    ]
    missing = [name for name in template if name not in weights]
    shaped = [
        f"{name} {list(weights[name].shape)} for {list(tensor.shape)}"
        for name, tensor in template.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    problems = [
        f"{label} {_first(names)}"
        for label, names in (
            ("missing", [f"{name} {list(template[name].shape)}" for name in missing]),
            ("unexpected", [f"{name} {list(weights[name].shape)}" for name in extra]),
            ("wrong shape", shaped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            where,
            f"does not fit the model: {'; '.join(problems)}",
            remedy="check the model section",
        )
    return {
        name: _converted(weights[name], tensor.dtype, f"{where}: {name}")
        for name, tensor in template.items()
    }


def _converted(tensor: torch.Tensor, dtype: torch.dtype, where: str) -> torch.Tensor:
    if not tensor.is_floating_point():
        raise CheckpointError(where, f"has dtype {tensor.dtype}", "floating point")
    converted = tensor.detach().to(dtype, copy=True).contiguous()
    bad = int((~torch.isfinite(converted)).sum())
    if bad:
        raise CheckpointError(
            where, f"{bad} of {tensor.numel()} weights are NaN or infinite", "finite weights"
        )
    return converted


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _read_safetensors(path: Path, data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        weights = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            path, f"is no whole safetensors file ({error})", remedy="copy or train it again"
        ) from None
    return weights, header.get("__metadata__", {})


def _read_torch(path: Path, data: bytes) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript archives warn before they are refused
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        wanted = _refused_globals(data, str(error))
        what = f"asks to run {_first(wanted)}" if wanted else "is damaged or no state dict"
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
    if not isinstance(content, dict):
        raise CheckpointError(path, f"holds a {type(content).__name__}", "tensors by name", _EXPORT)
    if not content:
        raise CheckpointError(path, "holds no tensors", "tensors by name", _EXPORT)
    other = [key for key, value in content.items() if not _is_plain(key, value)]
    if other:
        keys = _first([ascii(key) for key in content])
        nested = isinstance(content[other[0]], dict)
        raise CheckpointError(
            path,
            f"holds the keys {keys}, and {other[0]!r} is no plain tensor",
            "tensors by name",
            f"export it with torch.save(checkpoint[{other[0]!r}], 'weights.pt')"
            if nested
            else _EXPORT,
        )
    return {name: tensor.detach() for name, tensor in content.items()}


def _is_plain(key: Any, value: Any) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )
