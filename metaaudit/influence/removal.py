"""What the objective's gradient loses with some of the training data: ``sum d/d omega D L_k``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import grad

from metaaudit.bilevel import Adaptation, TaskBatch
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Removal:
    """Data that goes: whole tasks, or instances.

    Attributes:
        tasks: ``[n_tasks]``: whether a task goes, or some of its instances do.
        instances: ``[n_instances]``, in the task set's order of instances: whether it goes; absent
            where whole tasks do.
    """

    tasks: Flags
    instances: Flags | None = None

    @property
    def rows(self) -> list[int]:
        """Positions of the tasks that change."""
        rows: list[int] = np.flatnonzero(self.tasks).tolist()
        return rows

    def marks(self, task_set: TaskSet) -> Flags:
        """Whether it goes, of the instances of the tasks that change alone."""
        assert self.instances is not None
        owners = np.array([row for row, _, _ in task_set.instances()])
        marks: Flags = self.instances[self.tasks[owners]]
        return marks


def removed_gradient(train: Adaptation, gradients: Tensor, removal: Removal) -> Tensor:
    """``sum d/d omega D L_k`` over the weights ``omega`` of what goes: ``[n_params]``, float64.

    Args:
        train: The training tasks.
        gradients: ``[n_tasks, n_params]``: ``D L_k``.
        removal: What goes.
    """
    if removal.instances is None:
        return gradients[removal.rows].double().sum(0)
    return weight_gradient(train.over(removal.rows), removal.marks(train.task_set))


def weight_gradient(adaptation: Adaptation, marked: Flags) -> Tensor:
    """``sum d/d omega D L_k`` over the weights ``omega`` of marked instances: ``[n_params]``.

    Args:
        adaptation: The tasks; not by an inverse that iterates, which differentiates to nothing.
        marked: ``[n_instances]``, in the task set's order of instances.
    """
    total = torch.zeros(adaptation.layout.size, dtype=torch.float64)
    zeros = {name: torch.zeros_like(p) for name, p in adaptation.params.items()}
    for batch in adaptation.batches():
        chosen = torch.from_numpy(marked[batch.instances]).to(batch.data.support_x)

        def along(tangent: Params, batch: TaskBatch = batch, chosen: Tensor = chosen) -> Tensor:
            # It is linear in the tangent, so its gradient is what multiplies the tangent.
            return (chosen * adaptation.weight_derivatives(batch, tangent)).sum()

        total += adaptation.layout.flatten(grad(along)(zeros)).double().cpu()
    return total
