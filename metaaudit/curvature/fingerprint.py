"""What a cached array depends on, besides its own settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from torch import Tensor

COMPUTING = (
    "bilevel/**/*.py",
    "curvature/*.py",
    "influence/self_influence.py",
    "inputs/task_set.py",
    "labelnoise/*.py",
    "learners/*.py",
    "linalg/*.py",
    "methods/margins.py",
    "methods/partial.py",
    "methods/pooled_ekfac.py",
    "models/*.py",
)


@cache
def code_hash(patterns: tuple[str, ...] = COMPUTING) -> str:
    """SHA-256 of the source of everything between stored pixels and cached numbers.

    Args:
        patterns: Its files, below the package's folder.
    """
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def weights_hash(params: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of parameters."""
    digest = hashlib.sha256()
    for name, p in params.items():
        digest.update(repr((name, str(p.dtype), tuple(p.shape))).encode())
        digest.update(p.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
