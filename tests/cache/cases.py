"""Small arrays, a key for them, and how they are asked for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from metaaudit.cache import Arrays, FactorCache

KEY: dict[str, Any] = {
    "weights": "a" * 64,
    "dtype": "float32",
    "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
    "source": None,
}


def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "gradients": rng.normal(size=(6, 40)).astype(np.float32),
        "losses": rng.normal(size=6),
        "correct": rng.random(6) > 0.5,
        "rows": np.arange(6),
    }


def assert_same(got: Arrays, expected: Arrays) -> None:
    assert set(got) == set(expected)
    for name, values in expected.items():
        assert got[name].dtype == values.dtype, name
        np.testing.assert_array_equal(got[name], values, err_msg=name)
        assert got[name].shape == values.shape, name


def refuse() -> Arrays:
    raise AssertionError("computed again")


def get(
    cache: FactorCache, compute: Any = arrays, key: dict[str, Any] | None = None, label: str = "x"
) -> Arrays:
    return cache.get("gradients", KEY if key is None else key, compute, label=label)


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.h5")
    return path


def add(folder: Path, number: int) -> Path:
    """Adds an entry of about 8 kB; returns its file."""
    before = set(folder.glob("*.h5"))
    get(FactorCache(folder), lambda: {"a": np.full(500, number)}, {"number": number})
    (path,) = set(folder.glob("*.h5")) - before
    return path


HOLDER = """
import sys, time
from pathlib import Path
import numpy as np
from metaaudit.cache import FactorCache

def compute():
    Path(sys.argv[2]).touch()
    time.sleep(60)
    return {}

FactorCache(Path(sys.argv[1])).get("gradients", {}, compute, label="x")
"""


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes the arrays of the key ``{}`` for a minute."""
    ready = folder.with_name(f"{folder.name}-ready")
    with subprocess.Popen([sys.executable, "-c", HOLDER, folder, ready]) as process:
        try:
            deadline = time.monotonic() + 60
            while not ready.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert ready.exists()
            yield process
        finally:
            process.kill()
