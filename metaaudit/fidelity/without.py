"""Training data without some tasks or instances, as an edit and a retraining take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from metaaudit.fidelity.subsets import Place, removable, without_instances, without_tasks
from metaaudit.influence import Removal
from metaaudit.inputs.task_set import SetName, TaskSet
from metaaudit.methods import MethodScores

Drop = Literal["tasks", "training-instances", "validation-instances"]
"""What goes: whole tasks, support instances or query instances."""

SET_OF: dict[Drop, SetName] = {"training-instances": "support", "validation-instances": "query"}


@dataclass(frozen=True)
class Without:
    """Training tasks without some of the data.

    Attributes:
        removal: What goes.
        task_set: What stays.
    """

    removal: Removal
    task_set: TaskSet


@dataclass(frozen=True)
class Removable:
    """All that may go from a task set.

    Attributes:
        task_set: The training tasks.
        drop: What goes.
    """

    task_set: TaskSet
    drop: Drop

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Of tasks in the set, or of instances in its order of instances."""
        if self.drop == "tasks":
            return np.arange(len(self.task_set))
        wanted = SET_OF[self.drop]
        return np.flatnonzero([name == wanted for _, name, _ in self.task_set.instances()])

    def count(self, fraction: float) -> int:
        """How many a fraction is, at least one."""
        return max(1, round(fraction * len(self.positions)))

    def at_random(self, fraction: float, rng: np.random.Generator) -> Without:
        """A random share goes."""
        return self.first(rng.permutation(self.positions), self.count(fraction))

    def most_harmful(self, fraction: float, scores: MethodScores) -> Without:
        """What scores most, by the mean over the targets, goes; ties by position."""
        tasks = self.drop == "tasks"
        harm = scores.task_influence.mean(axis=1) if tasks else scores.instance_influence
        positions = self.positions
        order = positions[np.argsort(-harm[positions], kind="stable")]
        return self.first(order, self.count(fraction))

    def first(self, order: npt.NDArray[np.int64], count: int) -> Without:
        """The first of an order go.

        The last task stays, the last support instance of a class in its task, and the last query
        instance of a task: those that follow in the order go instead, as far as there are any.
        """
        task_set = self.task_set
        gone = np.zeros(len(task_set), dtype=np.bool_)
        if self.drop == "tasks":
            gone[order[: min(count, len(task_set) - 1)]] = True
            return Without(Removal(gone), without_tasks(task_set, np.flatnonzero(gone).tolist()))
        places: list[Place] = list(task_set.instances())
        taken = removable(task_set, [places[i] for i in order.tolist()])[:count]
        gone[[row for row, _, _ in taken]] = True
        marked = _marked(places, taken)
        return Without(Removal(gone, marked), without_instances(task_set, taken))


def _marked(places: Sequence[Place], taken: Sequence[Place]) -> npt.NDArray[np.bool_]:
    chosen = set(taken)
    return np.array([place in chosen for place in places], dtype=np.bool_)
