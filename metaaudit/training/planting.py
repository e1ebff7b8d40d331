"""Wrong labels planted on purpose, so that what an audit finds can be counted."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.task_set import SETS, Ints, SetName, Task, TaskSet

COLUMNS = ("task_id", "set", "index", "true_label", "planted_label", "kind")


@dataclass(frozen=True)
class Planted:
    """A task set with wrong labels, and where they are.

    Attributes:
        task_set: The tasks, some with wrong labels.
        flipped: Positions of tasks that have some flipped labels.
        permuted: Positions of tasks whose query labels follow another class mapping.
        wrong: ``[n_instances]``: whether the label was changed, in the set's order of instances.
        clean: The tasks as they were.
    """

    task_set: TaskSet
    flipped: tuple[int, ...]
    permuted: tuple[int, ...]
    wrong: npt.NDArray[np.bool_]
    clean: TaskSet

    def csv(self) -> str:
        """One line for every changed label, with the columns ``COLUMNS``."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for wrong, (row, name, index) in zip(self.wrong, self.clean.instances(), strict=True):
            if wrong:
                before, after = self.clean.tasks[row], self.task_set.tasks[row]
                labels = int(before.labels(name)[index]), int(after.labels(name)[index])
                kind = "permuted" if row in self.permuted else "flipped"
                writer.writerow([before.task_id, name, index, *labels, kind])
        return out.getvalue()


def plant(
    task_set: TaskSet, *, flip_tasks: int, flip_share: float, permute_tasks: int, seed: int
) -> Planted:
    """Plants wrong labels in randomly chosen, different tasks.

    Args:
        task_set: Correct tasks.
        flip_tasks: Number of tasks in which a share of the labels is flipped to another class.
        flip_share: That share of a task's instances, support and query; at least one instance.
        permute_tasks: Number of tasks whose query labels are renamed so that no class keeps its
            name. MAML is indifferent to a renaming of a whole task; this one contradicts the
            support.
        seed: Seed of every choice.

    Raises:
        ValueError: More tasks are to be changed than there are.
    """
    if flip_tasks + permute_tasks > len(task_set):
        raise ValueError(f"{flip_tasks} + {permute_tasks} tasks to plant in, {len(task_set)} given")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(task_set))[: flip_tasks + permute_tasks].tolist()
    flipped, permuted = chosen[:flip_tasks], chosen[flip_tasks:]
    tasks = list(task_set.tasks)
    for row in flipped:
        tasks[row] = _flip(tasks[row], flip_share, rng)
    for row in permuted:
        tasks[row] = _permute(tasks[row], rng)
    changed = [
        tasks[row].labels(name)[index] != task_set.tasks[row].labels(name)[index]
        for row, name, index in task_set.instances()
    ]
    return Planted(
        TaskSet(task_set.pool, tuple(tasks)),
        tuple(sorted(flipped)),
        tuple(sorted(permuted)),
        np.array(changed, dtype=np.bool_),
        task_set,
    )


def _flip(task: Task, share: float, rng: np.random.Generator) -> Task:
    n, m = task.shape
    labels = np.concatenate([task.support_y, task.query_y])
    ways = int(labels.max()) + 1
    for i in rng.permutation(n + m)[: max(1, round(share * (n + m)))]:
        labels[i] = (labels[i] + rng.integers(1, ways)) % ways
    return _relabelled(task, {"support": labels[:n], "query": labels[n:]})


def _permute(task: Task, rng: np.random.Generator) -> Task:
    ways = int(task.query_y.max()) + 1
    # A random cycle through all classes moves every one of them.
    cycle = rng.permutation(ways)
    renamed = np.empty(ways, dtype=np.int64)
    renamed[cycle] = np.roll(cycle, 1)
    return _relabelled(task, {"support": task.support_y, "query": renamed[task.query_y]})


def _relabelled(task: Task, labels: dict[SetName, Ints]) -> Task:
    support, query = (labels[name] for name in SETS)
    return replace(task, support_y=support, query_y=query)
