"""Few-shot tasks of one's own, for `tasks: {format: factory, ...}`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

TRAINING, EVALUATION = range(6), range(6, 10)


def digits(
    n_train: int, n_eval: int, ways: int, shots: int, queries: int
) -> tuple[Iterator[dict[str, Any]], Iterator[dict[str, Any]]]:
    """Training and evaluation tasks over different digits, one mapping of arrays a task."""
    return (
        _tasks("train", TRAINING, n_train, ways, shots, queries),
        _tasks("eval", EVALUATION, n_eval, ways, shots, queries),
    )


def _tasks(
    name: str, classes: range, count: int, ways: int, shots: int, queries: int
) -> Iterator[dict[str, Any]]:
    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)  # [n, 1, 8, 8], in [0, 1]
    for number in range(count):
        rng = np.random.default_rng([classes[0], number])
        chosen = rng.choice(classes, ways, replace=False)
        rows = np.stack(
            [
                rng.choice(np.flatnonzero(data.target == digit), shots + queries, replace=False)
                for digit in chosen
            ]
        )
        support, query = rows[:, :shots].reshape(-1), rows[:, shots:].reshape(-1)
        yield {
            "task_id": f"{name}-{number:04d}",
            "support_x": images[support],
            "support_y": np.repeat(np.arange(ways), shots),
            "query_x": images[query],
            "query_y": np.repeat(np.arange(ways), queries),
            # Ids let the same image be recognised in several tasks.
            "support_id": [f"digit-{row}" for row in support],
            "query_id": [f"digit-{row}" for row in query],
            "class_names": [str(digit) for digit in chosen],
        }
