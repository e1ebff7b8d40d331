"""One image over all tasks that it occurs in, its labels as the data set's classes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metaaudit.inputs.task_set import Ints, Task, TaskSet

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        instance_id: Its id.
        row: Its row in the image pool.
        occurrences: Positions in the task set's order of instances.
        label: Its given class; several, where its tasks differ, joined by `` | ``. Where a task
            names no classes, the number in it, and which task, if there are several.
        suggested: The class that its tasks suggest together.
        score: Mean score of its occurrences.
        wrong: Mean probability over its occurrences that the label is wrong. They share the image
            and mostly the learner's errors, so that they are no independent witnesses.
    """

    instance_id: str
    row: int
    occurrences: tuple[int, ...]
    label: str
    suggested: str
    score: float
    wrong: float


def pool_items(task_set: TaskSet, suggested: Ints, scores: Floats, wrong: Floats) -> list[Item]:
    """Every image of a task set with the evidence of all its occurrences.

    Args:
        task_set: The tasks.
        suggested: ``[n_instances]`` suggested labels.
        scores: ``[n_instances]``.
        wrong: ``[n_instances]`` probability that each label is wrong.

    Returns:
        The items in the order of their first occurrence.
    """
    places = list(task_set.instances())
    members: dict[int, list[int]] = defaultdict(list)
    for position, (row, name, index) in enumerate(places):
        members[int(task_set.tasks[row].rows(name)[index])].append(position)

    def item(image: int, occurrences: list[int]) -> Item:
        several = len({places[position][0] for position in occurrences}) > 1

        def named(task: Task, label: int) -> str:
            name = class_name(task, label)
            # A number means another class in another task.
            return f"{name} in {task.task_id}" if several and not _has_name(task, label) else name

        given: dict[str, None] = {}
        votes: dict[str, float] = defaultdict(float)
        for position in occurrences:
            row, name, index = places[position]
            task = task_set.tasks[row]
            given[named(task, int(task.labels(name)[index]))] = None
            # The surer that the label is wrong, the more the suggestion counts; a little always.
            votes[named(task, int(suggested[position]))] += wrong[position] + 1e-6
        return Item(
            instance_id=task_set.pool.ids[image],
            row=image,
            occurrences=tuple(occurrences),
            label=" | ".join(given),
            suggested=max(votes, key=lambda name: votes[name]),
            score=float(scores[occurrences].mean()),
            wrong=float(wrong[occurrences].mean()),
        )

    return [item(image, occurrences) for image, occurrences in members.items()]


def class_name(task: Task, label: int) -> str:
    """The data set's name of a label; its number within the task where there is none."""
    return task.class_names[label] if _has_name(task, label) else str(label)


def _has_name(task: Task, label: int) -> bool:
    return label < len(task.class_names) and bool(task.class_names[label])
