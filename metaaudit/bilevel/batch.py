"""Tasks of one shape as tensors, to be mapped over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metaaudit.inputs.task_set import Ints, TaskSet


class TaskTensors(NamedTuple):
    """The data of one task, or of several with a leading dimension."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    @property
    def sets(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and labels of the support, unless it is empty, and of the query."""
        query = self.query_x, self.query_y
        if not self.support_y.shape[-1]:
            return [query]
        return [(self.support_x, self.support_y), query]


@dataclass(frozen=True)
class TaskBatch:
    """Several tasks of one shape.

    Attributes:
        rows: ``[batch]`` positions of the tasks in their set.
        instances: ``[batch, n + m]`` positions of their instances in the set's order of
            instances (task by task, support before query).
        data: Their tensors, each with a leading dimension ``batch``.
    """

    rows: Ints
    instances: Ints
    data: TaskTensors


@dataclass(frozen=True)
class Batching:
    """How tasks become tensors.

    Attributes:
        size: Tasks computed at once.
        device: Where.
        dtype: Floating-point type of the inputs.
    """

    size: int
    device: torch.device
    dtype: torch.dtype

    def batches(self, task_set: TaskSet) -> Iterator[TaskBatch]:
        """Yields all tasks, those of one shape together, in the order of the set within a shape."""
        counts = [sum(task.shape) for task in task_set.tasks]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        by_shape: dict[tuple[int, int], list[int]] = {}
        for row, task in enumerate(task_set.tasks):
            by_shape.setdefault(task.shape, []).append(row)
        for shape, rows in by_shape.items():
            for start in range(0, len(rows), self.size):
                picked = np.array(rows[start : start + self.size], dtype=np.int64)
                instances = starts[picked][:, None] + np.arange(sum(shape))
                yield TaskBatch(picked, instances, self._tensors(task_set, picked))

    def _tensors(self, task_set: TaskSet, rows: Ints) -> TaskTensors:
        tasks = [task_set.tasks[row] for row in rows]

        def inputs(index: list[Ints]) -> Tensor:
            values = task_set.pool.values(np.stack(index))
            return torch.from_numpy(values).to(self.device, self.dtype)

        def labels(values: list[Ints]) -> Tensor:
            return torch.from_numpy(np.stack(values)).to(self.device)

        return TaskTensors(
            inputs([task.support for task in tasks]),
            labels([task.support_y for task in tasks]),
            inputs([task.query for task in tasks]),
            labels([task.query_y for task in tasks]),
        )
