"""Weights to ``.safetensors`` files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from metaaudit.errors import CheckpointError
from metaaudit.runs.atomic import replacing


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
