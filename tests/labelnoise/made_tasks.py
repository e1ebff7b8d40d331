"""Task sets of given labels, and a small learner in double precision."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from metaaudit.bilevel import Batching, Objective
from metaaudit.config.model import MlpConfig
from metaaudit.demo.digits import digit_tasks
from metaaudit.inputs.task_set import ImagePool, Ints, Task, TaskSet
from metaaudit.learners import MAML
from metaaudit.models import Params, build_model

WAYS = 3

Case = tuple[Objective, Params, TaskSet]


def made_tasks(
    labels: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    rows: Sequence[Sequence[int]] | None = None,
    class_names: Sequence[tuple[str, ...]] | None = None,
) -> TaskSet:
    """Tasks ``task-0``, ... with these labels, each of images of its own by default.

    Args:
        labels: Labels of the support and of the query of each task.
        rows: Images of each task, support before query.
        class_names: Of each task.
    """
    sizes = [len(support) + len(query) for support, query in labels]
    starts = np.cumsum([0, *sizes])
    rows = rows or [range(a, b) for a, b in itertools.pairwise(starts)]
    tasks = [
        Task(
            f"task-{k}",
            np.array(rows[k][: len(support)], dtype=np.int64),
            np.array(support, dtype=np.int64),
            np.array(rows[k][len(support) :], dtype=np.int64),
            np.array(query, dtype=np.int64),
            class_names[k] if class_names else (),
        )
        for k, (support, query) in enumerate(labels)
    ]
    n_images = 1 + max(max(members) for members in rows)
    pixels = np.arange(n_images, dtype=np.float32)[:, None]
    pool = ImagePool(pixels, tuple(f"image-{row}" for row in range(n_images)))
    return TaskSet(pool, tuple(tasks))


def given_labels(task_set: TaskSet) -> Ints:
    """All given labels, in the set's order of instances."""
    parts = [part for task in task_set.tasks for part in (task.support_y, task.query_y)]
    return np.concatenate(parts)


def sure_of(labels: Ints, n_outputs: int, p: float) -> npt.NDArray[np.float64]:
    """Log-probabilities ``[n, n_outputs]`` with ``p`` on these labels, the rest spread evenly."""
    result = np.full((len(labels), n_outputs), np.log((1 - p) / (n_outputs - 1)))
    result[np.arange(len(labels)), labels] = np.log(p)
    return result


def learner_case(steps: int = 2, sizes: Sequence[int] = (0, 0, 0)) -> Case:
    """A network, its initial parameters and tasks of digits.

    Args:
        steps: Inner steps.
        sizes: For each task how many support and query instances it has less than the largest.
    """
    task_set, _ = digit_tasks(n_train=len(sizes), n_eval=1, ways=WAYS, shots=4, queries=3, seed=0)
    config = MlpConfig(name="mlp", hidden=[8], ways=WAYS)
    model = build_model(config, input_shape=(1, 8, 8), ways=WAYS)
    model = model.to(torch.device("cpu"), torch.float64)
    tasks = tuple(
        Task(
            task.task_id,
            task.support[: len(task.support) - less],
            task.support_y[: len(task.support) - less],
            task.query[: len(task.query) - less],
            task.query_y[: len(task.query) - less],
        )
        for task, less in zip(task_set.tasks, sizes, strict=True)
    )
    objective = Objective(model, MAML(0.1, steps))
    return objective, model.initial(), TaskSet(task_set.pool, tasks)


def batching(size: int = 2) -> Batching:
    """Some tasks at a time, in double precision."""
    return Batching(size, torch.device("cpu"), torch.float64)
