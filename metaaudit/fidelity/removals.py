"""What each of several retrainings lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from metaaudit.config.evaluate import LdsConfig
from metaaudit.errors import TaskSetError
from metaaudit.fidelity.subsets import removable, subsets, without_instances, without_tasks
from metaaudit.inputs.task_set import TaskSet

Flags = npt.NDArray[np.bool_]

LEAST = 3
"""Retrainings without which there is nothing to rank."""


@dataclass(frozen=True)
class Removals:
    """What is left out.

    Attributes:
        task_set: Everything.
        names: Of each removal.
        kept: ``[n_removals, n_items]``: the tasks or instances that it has.
        whole_tasks: Whether the items are tasks.
    """

    task_set: TaskSet
    names: tuple[str, ...]
    kept: Flags
    whole_tasks: bool

    @classmethod
    def of(cls, task_set: TaskSet, config: LdsConfig) -> Removals:
        """Drawn at random as the experiment asks; fewer where there are no more to remove.

        Raises:
            TaskSetError: There are too few to compare.
        """
        build = {"subset": _subsets, "task": _tasks, "instance": _instances}[config.remove]
        names, kept = build(task_set, config)
        sizes = kept.sum(axis=1)
        if len(names) < LEAST or not (sizes.min() > 0 and sizes.max() < kept.shape[1]):
            raise TaskSetError(
                "evaluate",
                f"{len(names)} retrainings without a {config.remove} of {len(task_set)} tasks tell "
                "nothing",
                f"{LEAST} of one task or more",
                "raise retrainings or fraction, or use more tasks",
            )
        return cls(task_set, names, kept, config.remove != "instance")

    @cached_property
    def task_sets(self) -> list[TaskSet]:
        """What each retraining trains on."""
        gone = [np.flatnonzero(~row).tolist() for row in self.kept]
        if self.whole_tasks:
            return [without_tasks(self.task_set, rows) for rows in gone]
        places = list(self.task_set.instances())
        return [without_instances(self.task_set, [places[i] for i in items]) for items in gone]


def _subsets(task_set: TaskSet, config: LdsConfig) -> tuple[tuple[str, ...], Flags]:
    rows = subsets(len(task_set), config.fraction, config.retrainings, config.seed)
    kept = np.zeros((len(rows), len(task_set)), dtype=np.bool_)
    for row, chosen in zip(kept, rows, strict=True):
        row[chosen] = True
    return tuple(f"subset {number}" for number in range(1, len(rows) + 1)), kept


def _tasks(task_set: TaskSet, config: LdsConfig) -> tuple[tuple[str, ...], Flags]:
    chosen = _drawn(range(len(task_set)), config)
    return tuple(task_set.tasks[row].task_id for row in chosen), _all_but(chosen, len(task_set))


def _instances(task_set: TaskSet, config: LdsConfig) -> tuple[tuple[str, ...], Flags]:
    places = list(task_set.instances())
    spare = [i for i, place in enumerate(places) if removable(task_set, [place])]
    chosen = _drawn(spare, config)
    names = tuple(
        f"{task_set.tasks[row].task_id} {name} {index}"
        for row, name, index in (places[i] for i in chosen)
    )
    return names, _all_but(chosen, len(places))


def _drawn(items: Iterable[int], config: LdsConfig) -> list[int]:
    rng = np.random.default_rng(config.seed)
    found: list[int] = rng.permutation(np.array(list(items)))[: config.retrainings].tolist()
    return found


def _all_but(chosen: list[int], n_items: int) -> Flags:
    kept = np.ones((len(chosen), n_items), dtype=np.bool_)
    kept[np.arange(len(chosen)), chosen] = False
    return kept
