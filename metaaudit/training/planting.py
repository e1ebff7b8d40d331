"""Wrong labels planted on purpose, so that what an audit finds can be counted."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from metaaudit.config.plant import PlantConfig
from metaaudit.errors import ConfigError, TaskSetError
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
        corrupted: Positions of tasks chosen as a whole, to have a share of their labels flipped.
    """

    task_set: TaskSet
    flipped: tuple[int, ...]
    permuted: tuple[int, ...]
    wrong: npt.NDArray[np.bool_]
    clean: TaskSet
    corrupted: tuple[int, ...] = ()

    @property
    def by_kind(self) -> dict[str, tuple[int, ...]]:
        """Positions of the changed tasks, by the one kind of noise that each has."""
        single = tuple(row for row in self.flipped if row not in set(self.corrupted))
        kinds = {"corrupted": self.corrupted, "permuted": self.permuted, "flipped": single}
        return {kind: rows for kind, rows in kinds.items() if rows}

    def csv(self) -> str:
        """One line for every changed label, with the columns ``COLUMNS``."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        kind_of = {row: kind for kind, rows in self.by_kind.items() for row in rows}
        for wrong, (row, name, index) in zip(self.wrong, self.clean.instances(), strict=True):
            if wrong:
                before, after = self.clean.tasks[row], self.task_set.tasks[row]
                labels = int(before.labels(name)[index]), int(after.labels(name)[index])
                writer.writerow([before.task_id, name, index, *labels, kind_of[row]])
        return out.getvalue()


def planted(task_set: TaskSet, config: PlantConfig) -> Planted:
    """Plants all that a ``plant`` section asks for.

    A task is corrupted or permuted or neither; flips fall on the instances of the tasks left.

    Args:
        task_set: Correct tasks.
        config: The section; with all shares 0 nothing changes.

    Raises:
        ConfigError: A share comes to less than one task or label.
        TaskSetError: A task has one class.
    """
    for task in task_set.tasks:
        if task.ways < 2:
            raise TaskSetError(
                task.task_id, "has one class: no label can be wrong", remedy="remove `plant`"
            )
    n_tasks = len(task_set)
    corrupted = _number("corrupted", config.corrupted, n_tasks, "tasks")
    permuted = _number("permuted", config.permuted, n_tasks, "tasks")
    whole = plant(
        task_set,
        flip_tasks=corrupted,
        flip_share=config.corrupted_labels,
        permute_tasks=min(permuted, n_tasks - corrupted),  # both are rounded, perhaps up
        seed=config.seed,
    )
    share = config.flips or config.confusable
    if not share:
        return whole
    taken = {*whole.corrupted, *whole.permuted}
    left = [row for row in range(n_tasks) if row not in taken]
    rest, confusable = task_set.select(left), config.confusable > 0
    key = "confusable" if confusable else "flips"
    _number(key, share, rest.n_instances, "labels in the tasks left alone")
    single = flip_labels(rest, share, seed=config.seed, confusable=confusable)
    tasks = list(whole.task_set.tasks)
    for row, task in zip(left, single.task_set.tasks, strict=True):
        tasks[row] = task
    both = TaskSet(task_set.pool, tuple(tasks))
    return replace(
        whole,
        task_set=both,
        flipped=tuple(sorted({*whole.flipped, *(left[row] for row in single.flipped)})),
        wrong=_differing(both, task_set),
    )


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
    found = TaskSet(task_set.pool, tuple(tasks))
    rows = tuple(sorted(flipped))
    wrong = _differing(found, task_set)
    return Planted(found, rows, tuple(sorted(permuted)), wrong, task_set, corrupted=rows)


def flip_labels(
    task_set: TaskSet,
    share: float,
    *,
    seed: int,
    sets: tuple[SetName, ...] = SETS,
    confusable: bool = False,
) -> Planted:
    """Plants wrong labels in a share of all instances, whatever their task.

    Args:
        task_set: Correct tasks.
        share: Of the instances of ``sets``, chosen without replacement.
        seed: Seed of every choice.
        sets: Whether support or query instances change, or both.
        confusable: Whether a label becomes that of the class of its task whose mean image is
            nearest to the mean image of its own, in place of any other.

    Raises:
        ValueError: A task has one class.
    """
    for task in task_set.tasks:
        if task.ways < 2:
            raise ValueError(f"{task.task_id} has one class: no label can be wrong")
    rng = np.random.default_rng(seed)
    places = list(task_set.instances())
    candidates = np.array([i for i, (_, name, _) in enumerate(places) if name in sets])
    chosen = np.sort(rng.permutation(candidates)[: round(share * len(candidates))])
    labels = [{name: task.labels(name).copy() for name in SETS} for task in task_set.tasks]
    for i in chosen.tolist():
        row, name, index = places[i]
        given, ways = int(labels[row][name][index]), task_set.tasks[row].ways
        if confusable:
            labels[row][name][index] = _nearest_class(task_set, row, given)
        else:
            labels[row][name][index] = (given + rng.integers(1, ways)) % ways
    tasks = tuple(_relabelled(task, own) for task, own in zip(task_set.tasks, labels, strict=True))
    wrong = np.zeros(len(places), dtype=np.bool_)
    wrong[chosen] = True
    flipped = tuple(sorted({places[i][0] for i in chosen.tolist()}))
    return Planted(TaskSet(task_set.pool, tasks), flipped, (), wrong, task_set)


def _number(key: str, share: float, total: int, what: str) -> int:
    """How many a share comes to.

    Raises:
        ConfigError: None, though some were asked for.
    """
    number = round(share * total)
    if share and not number:
        raise ConfigError(
            f"plant.{key}", f"is {share:g} of {total} {what}, less than one", "a larger share"
        )
    return number


def _differing(after: TaskSet, before: TaskSet) -> npt.NDArray[np.bool_]:
    """``[n_instances]``: whether a label is another one."""
    pairs = zip(after.tasks, before.tasks, strict=True)
    return np.concatenate([one.pooled_labels != other.pooled_labels for one, other in pairs])


def _nearest_class(task_set: TaskSet, row: int, label: int) -> int:
    """The other class of a task whose mean image is nearest to that of a class."""
    task = task_set.tasks[row]
    rows = np.concatenate([task.support, task.query])
    labels = task.pooled_labels
    values = task_set.pool.values(rows).reshape(len(rows), -1)
    means = {c: values[labels == c].mean(axis=0) for c in np.unique(labels).tolist()}
    others = [c for c in means if c != label]
    nearest: int = min(others, key=lambda c: float(np.square(means[c] - means[label]).sum()))
    return nearest


def _flip(task: Task, share: float, rng: np.random.Generator) -> Task:
    n, m = task.shape
    labels, ways = task.pooled_labels, task.ways
    for i in rng.permutation(n + m)[: max(1, round(share * (n + m)))]:
        labels[i] = (labels[i] + rng.integers(1, ways)) % ways
    return _relabelled(task, {"support": labels[:n], "query": labels[n:]})


def _permute(task: Task, rng: np.random.Generator) -> Task:
    ways = task.ways
    # A random cycle through all classes moves every one of them.
    cycle = rng.permutation(ways)
    renamed = np.empty(ways, dtype=np.int64)
    renamed[cycle] = np.roll(cycle, 1)
    return _relabelled(task, {"support": task.support_y, "query": renamed[task.query_y]})


def _relabelled(task: Task, labels: dict[SetName, Ints]) -> Task:
    support, query = (labels[name] for name in SETS)
    return replace(task, support_y=support, query_y=query)
