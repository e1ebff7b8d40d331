"""How meta-parameters do on the queries of tasks, without any derivative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.func import vmap

from metaaudit.bilevel.adaptation import Adaptation
from metaaudit.bilevel.batch import TaskTensors
from metaaudit.models import Params


@dataclass(frozen=True)
class QueryOutcome:
    """What adaptation to each task leads to.

    Attributes:
        losses: ``[n_tasks]``, ``L_k``: the mean loss of the queries.
        accuracies: ``[n_tasks]``, the share of queries that are classified as labelled.
    """

    losses: npt.NDArray[np.float64]
    accuracies: npt.NDArray[np.float64]


def query_outcome(adaptation: Adaptation) -> QueryOutcome:
    """Adapts to every task and classifies its queries."""
    objective = adaptation.objective

    def seen(theta: Params, data: TaskTensors) -> tuple[Tensor, Tensor]:
        outputs = objective.forward(theta, data.query_x)
        return objective.loss(outputs, data.query_y), outputs.argmax(-1) == data.query_y

    losses, accuracies = (np.empty(len(adaptation.task_set)) for _ in range(2))
    for batch in adaptation.batches():
        found = vmap(seen)(adaptation.adapted(batch), batch.data)
        each, hits = (values.double().cpu().numpy() for values in found)
        losses[batch.rows], accuracies[batch.rows] = each.mean(axis=1), hits.mean(axis=1)
    return QueryOutcome(losses, accuracies)
