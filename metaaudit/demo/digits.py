"""Few-shot tasks from scikit-learn's digits, turned by quarters into 40 classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from metaaudit.errors import InputError
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet

TURNS = 4
ALIKE = (6, 9)  # a 9 is a turned 6, so the two never meet in a task
EVERY_NTH_CLASS_HELD_OUT = 4

Class = tuple[int, int]
"""``(digit, quarter turns)``."""


def digit_tasks(
    *, n_train: int, n_eval: int, ways: int, shots: int, queries: int, seed: int
) -> tuple[TaskSet, TaskSet]:
    """Samples training and evaluation tasks; the two share no class.

    A task never holds two rotations of one digit (0, 1 and 8 look the same after half a turn), nor
    both 6 and 9.

    Args:
        n_train: Number of training tasks, from three quarters of the 40 classes.
        n_eval: Number of evaluation tasks, from the others.
        ways: Classes a task.
        shots: Support instances a class.
        queries: Query instances a class.
        seed: Seed of every choice.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "demo", "needs scikit-learn's digits", remedy="pip install 'metaaudit[demo]'"
        ) from None
    data = load_digits()
    upright = (data.images * (255 / 16)).round().astype(np.uint8)
    pool = ImagePool(
        np.concatenate([np.rot90(upright, k, axes=(1, 2)) for k in range(TURNS)])[:, None],
        tuple(f"digits/{i:04d}/rot{90 * k}" for k in range(TURNS) for i in range(len(upright))),
    )
    members = {
        (digit, k): np.flatnonzero(data.target == digit) + k * len(upright)
        for digit in range(10)
        for k in range(TURNS)
    }
    # Staggered, so that the evaluation classes cover all digits and all turns.
    held_out = [(d, k) for d, k in members if (d + k) % EVERY_NTH_CLASS_HELD_OUT == 0]
    splits = {
        "train": (n_train, [c for c in members if c not in held_out]),
        "eval": (n_eval, held_out),
    }
    sets = []
    for stream, (name, (count, classes)) in enumerate(splits.items()):
        tasks = [
            _sample(
                f"{name}-{t:04d}",
                {c: members[c] for c in classes},
                np.random.default_rng([seed, stream, t]),
                (ways, shots, queries),
            )
            for t in range(count)
        ]
        sets.append(TaskSet(pool, tuple(tasks)))
    return sets[0], sets[1]


def _sample(
    task_id: str,
    members: dict[Class, npt.NDArray[np.int64]],
    rng: np.random.Generator,
    sizes: tuple[int, int, int],
) -> Task:
    ways, shots, queries = sizes
    chosen = _distinct_classes(list(members), ways, rng)
    picked = [rng.choice(members[c], shots + queries, replace=False) for c in chosen]
    return Task(
        task_id,
        support=np.concatenate([rows[:shots] for rows in picked]),
        support_y=np.repeat(np.arange(ways), shots),
        query=np.concatenate([rows[shots:] for rows in picked]),
        query_y=np.repeat(np.arange(ways), queries),
        class_names=tuple(f"{digit} at {90 * k}°" for digit, k in chosen),
    )


def _distinct_classes(classes: list[Class], ways: int, rng: np.random.Generator) -> list[Class]:
    chosen: list[Class] = []
    for i in rng.permutation(len(classes)):
        looks = {ALIKE[0] if digit in ALIKE else digit for digit, _ in chosen}
        digit = ALIKE[0] if classes[i][0] in ALIKE else classes[i][0]
        if digit not in looks:
            chosen.append(classes[i])
        if len(chosen) == ways:
            break
    return chosen
